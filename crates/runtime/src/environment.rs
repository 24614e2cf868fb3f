//! Reads settings from environment variables and remembers every mistake, so that all are told at once.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// Every mistake found in the configuration, a line each.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    mistakes: Vec<(&'static str, String)>,
}

impl ConfigError {
    /// The variables with mistakes, in the order they were read.
    pub fn variables(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.mistakes.iter().map(|(name, _)| *name)
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        write!(f, "{count} mistake{} in the configuration:", if count == 1 { "" } else { "s" })?;
        for (name, why) in &self.mistakes {
            write!(f, "\n  {name}: {why}")?;
        }
        Ok(())
    }
}

/// A set of environment variables being read. An empty value counts as not set.
#[derive(Debug)]
pub struct Environment {
    values: HashMap<String, String>,
    mistakes: Vec<(&'static str, String)>,
    asked: Asked,
}

/// The variables that a program reads, each with its default where it has one; for its usage.
#[derive(Debug, Clone, Default)]
pub struct Asked(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Asked {
    /// In the order in which they were read first.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, name: &'static str, default: impl Display) {
        let mut variables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !variables.iter().any(|(known, _)| *known == name) {
            variables.push((name, default.to_string()));
        }
    }
}

impl Environment {
    /// The variables of this process; those that are not UTF-8 count as not set.
    #[must_use]
    pub fn from_process() -> Self {
        let utf8 = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::from_map(utf8)
    }

    /// The given variables, for tests and programs that read files.
    #[must_use]
    pub fn from_map(map: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = map.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
        Self { values, mistakes: Vec::new(), asked: Asked::default() }
    }

    /// What is read from here on, to be looked at afterwards.
    #[must_use]
    pub fn asked(&self) -> Asked {
        self.asked.clone()
    }

    /// The value, when there is one.
    #[must_use]
    pub fn optional(&self, name: &'static str) -> Option<String> {
        self.asked.note(name, "");
        self.values.get(name).cloned()
    }

    /// The value; its absence is remembered as a mistake and read as empty.
    pub fn required(&mut self, name: &'static str) -> String {
        self.asked.note(name, "required");
        let value = self.optional(name);
        value.unwrap_or_else(|| {
            self.mistake(name, "is required and not set");
            String::new()
        })
    }

    /// The value or the default.
    pub fn text(&mut self, name: &'static str, default: &str) -> String {
        self.asked.note(name, default);
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// The parsed value or the default; one that can not be parsed is remembered as a mistake.
    pub fn parsed<T>(&mut self, name: &'static str, default: T) -> T
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(text) = self.optional(name) else { return default };
        text.trim().parse().unwrap_or_else(|error| {
            self.mistake(name, format!("{text:?} can not be used: {error}"));
            default
        })
    }

    /// As [`Environment::parsed`], and outside `range` is a mistake too.
    pub fn parsed_in<T>(&mut self, name: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
        T::Err: Display,
    {
        self.asked.note(name, default);
        let value = self.parsed(name, default);
        if range.contains(&value) {
            return value;
        }
        self.mistake(name, format!("{value} is out of range: write {} to {}", range.start(), range.end()));
        default
    }

    /// Remembers a mistake. `why` says what is wrong and what to write instead.
    pub fn mistake(&mut self, name: &'static str, why: impl Display) {
        self.mistakes.push((name, why.to_string()));
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake remembered.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(ConfigError { mistakes: self.mistakes }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_map(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let mut env = environment(&[("PORT", "eighty"), ("POOL", "0"), ("BLANK", " ")]);
        assert_eq!(env.required("MISSING"), "");
        assert_eq!(env.required("BLANK"), "");
        assert_eq!(env.parsed("PORT", 80_u16), 80);
        assert_eq!(env.parsed_in("POOL", 16_u32, 1..=100), 16);
        let error = env.finish().unwrap_err();
        assert_eq!(error.variables().collect::<Vec<_>>(), ["MISSING", "BLANK", "PORT", "POOL"]);
        let text = error.to_string();
        assert!(
            text.starts_with("4 mistakes in the configuration:\n  MISSING: is required and not set"),
            "{text}"
        );
        assert!(text.contains("POOL: 0 is out of range: write 1 to 100"), "{text}");
    }

    #[test]
    fn good_values_are_read() {
        let mut env = environment(&[("PORT", " 8080 "), ("NAME", "orders")]);
        assert_eq!(env.parsed_in("PORT", 80_u16, 1..=9000), 8080);
        assert_eq!(env.required("NAME"), "orders");
        assert_eq!(env.text("OTHER", "default"), "default");
        assert!(env.finish().is_ok());
    }

    #[test]
    fn what_was_asked_for_can_be_told() {
        let mut env = environment(&[("PORT", "8080")]);
        let asked = env.asked();
        env.parsed_in("PORT", 80_u16, 1..=9000);
        env.required("NAME");
        env.text("OTHER", "default");
        assert_eq!(env.optional("OTHER"), None);
        let told = asked.variables();
        let told: Vec<_> = told.iter().map(|(name, default)| (*name, default.as_str())).collect();
        assert_eq!(told, [("PORT", "80"), ("NAME", "required"), ("OTHER", "default")]);
    }
}
