//! Rust source with its comments and literals blanked out, so that simple searches find code and nothing else.

/// The same text, same lines, with spaces for comments, strings and characters.
pub(super) fn masked(source: &str) -> String {
    let mut chars =
        Cursor { chars: source.chars().collect(), at: 0, out: String::with_capacity(source.len()) };
    while chars.at < chars.chars.len() {
        chars.step();
    }
    chars.out
}

struct Cursor {
    chars: Vec<char>,
    at: usize,
    out: String,
}

impl Cursor {
    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => self.blank_until(|cursor| cursor.peek(0) == Some('\n')),
            (Some('/'), Some('*')) => self.block_comment(),
            (Some('"'), _) => self.string(),
            (Some('r'), Some('"' | '#')) if self.raw_hashes(1).is_some() && !self.inside_word() => {
                self.raw_string(1)
            }
            (Some('b'), Some('r')) if self.raw_hashes(2).is_some() && !self.inside_word() => {
                self.raw_string(2)
            }
            (Some('\''), _) => self.quote(),
            _ => self.keep(),
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        self.out.extend(self.peek(0));
        self.at += 1;
    }

    fn blank(&mut self) {
        self.out.extend(self.peek(0).map(|c| if c == '\n' { c } else { ' ' }));
        self.at += 1;
    }

    fn blank_until(&mut self, end: impl Fn(&Self) -> bool) {
        while self.at < self.chars.len() && !end(self) {
            self.blank();
        }
    }

    /// Whether the character before continues a word: `for"` is no raw string.
    fn inside_word(&self) -> bool {
        self.at
            .checked_sub(1)
            .is_some_and(|before| self.chars[before].is_alphanumeric() || self.chars[before] == '_')
    }

    fn block_comment(&mut self) {
        let mut depth = 0_u32;
        loop {
            let step = match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => 1,
                (Some('*'), Some('/')) => -1,
                (None, _) => return,
                _ => {
                    self.blank();
                    continue;
                }
            };
            depth = depth.saturating_add_signed(step);
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.blank();
        loop {
            match self.peek(0) {
                None => return,
                Some('"') => return self.blank(),
                Some('\\') => {
                    self.blank();
                    self.blank();
                }
                Some(_) => self.blank(),
            }
        }
    }

    /// The number of hashes of a raw string whose `r` is at `offset - 1`.
    fn raw_hashes(&self, offset: usize) -> Option<usize> {
        let hashes = (0..).take_while(|ahead| self.peek(offset + ahead) == Some('#')).count();
        (self.peek(offset + hashes) == Some('"')).then_some(hashes)
    }

    fn raw_string(&mut self, offset: usize) {
        let hashes = self.raw_hashes(offset).unwrap_or(0);
        for _ in 0..=offset + hashes {
            self.blank();
        }
        let closes = |cursor: &Self| {
            cursor.peek(0) == Some('"') && (1..=hashes).all(|ahead| cursor.peek(ahead) == Some('#'))
        };
        self.blank_until(closes);
        for _ in 0..=hashes {
            self.blank();
        }
    }

    /// A character literal, or the tick of a lifetime.
    fn quote(&mut self) {
        match (self.peek(1), self.peek(2)) {
            (Some('\\'), _) => {
                self.blank();
                self.blank();
                self.blank();
                self.blank_until(|cursor| cursor.peek(0) == Some('\''));
                self.blank();
            }
            (Some(_), Some('\'')) => (0..3).for_each(|_| self.blank()),
            _ => self.keep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        let source = "fn a<'x>() { // {\n let s = \"}\\\"{\"; let c = '{'; let r = r#\"\"}\"#; /* } /* } */ */ b('\\n') }";
        let code = masked(source);
        assert_eq!(code.lines().count(), 2);
        assert_eq!(code.matches('{').count(), 1);
        assert_eq!(code.matches('}').count(), 1);
        assert!(code.contains("fn a<'x>()") && code.contains("b("));
        assert_eq!(code.chars().count(), source.chars().count());
    }
}
