//! `events decode`: standard input cut into frames.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write as _};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use waybill_messaging::codec::untyped::Schemas;

use crate::cli::Kind;
use crate::contract::{self, ShownValue, Text};
use crate::exit::Exit;
use crate::output;

/// Longest frame taken from standard input. A length above it means that the input has another form: a broker takes
/// about a megabyte a record.
const INPUT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Digits of a key's length and the space after them.
const KEY_DIGITS_MAX: u64 = 12;

/// A value and, where the input has one, its key.
struct Frame {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Text<'a>>,
    #[serde(flatten)]
    value: ShownValue,
}

/// Prints a line of JSON for each frame.
pub(crate) fn decode(input: Kind) -> anyhow::Result<Exit> {
    let schemas = contract::schemas()?;
    let mut stdin = BufReader::new(std::io::stdin().lock());
    let mut all_decoded = true;
    let mut number: u64 = 0;
    let next = |stdin: &mut BufReader<_>| match input {
        Kind::Lengths => lengths(stdin),
        Kind::KeysAndLengths => keys_and_lengths(stdin),
        Kind::Hex => hex(stdin),
        Kind::One => one(stdin),
    };
    while let Some(frame) =
        next(&mut stdin).with_context(|| format!("standard input ends or breaks at frame {}", number + 1))?
    {
        number += 1;
        all_decoded &= show(&schemas, &frame)?;
        if input == Kind::One {
            break;
        }
    }
    Ok(if all_decoded { Exit::Done } else { Exit::Differs })
}

fn show(schemas: &Schemas, frame: &Frame) -> anyhow::Result<bool> {
    let value = ShownValue::new(schemas, frame.value.as_deref());
    let is_decoded = value.is_decoded();
    let line = serde_json::to_string(&Line { key: frame.key.as_deref().map(Text), value })?;
    writeln!(std::io::stdout().lock(), "{line}").context(output::CLOSED)?;
    Ok(is_decoded)
}

fn lengths(input: &mut impl Read) -> anyhow::Result<Option<Frame>> {
    let Some(length) = length(input)? else { return Ok(None) };
    Ok(Some(Frame { key: None, value: bytes(input, length)? }))
}

fn keys_and_lengths(input: &mut impl BufRead) -> anyhow::Result<Option<Frame>> {
    let Some(key) = key_length(input)? else { return Ok(None) };
    let key = bytes(input, key)?;
    let value = length(input)?.context("a key without a value; write both with `kcat -f '%K %k%R%s'`")?;
    Ok(Some(Frame { key, value: bytes(input, value)? }))
}

/// A length in digits and a space, as kcat writes that of a key.
fn key_length(input: &mut impl BufRead) -> anyhow::Result<Option<i32>> {
    let mut digits = Vec::new();
    input
        .by_ref()
        .take(KEY_DIGITS_MAX)
        .read_until(b' ', &mut digits)
        .context("standard input can not be read")?;
    if digits.is_empty() {
        return Ok(None);
    }
    let length = std::str::from_utf8(&digits).ok().and_then(|text| text.strip_suffix(' ')?.parse().ok());
    length.map(Some).context("no length of a key; write frames with `kcat -f '%K %k%R%s'`")
}

/// A length of four bytes; `None` where the input ends before it.
fn length(input: &mut impl Read) -> anyhow::Result<Option<i32>> {
    let mut length = [0; 4];
    let mut read = 0;
    while read < length.len() {
        match input.read(&mut length[read..]) {
            Ok(0) if read == 0 => return Ok(None),
            Ok(0) => bail!("it ends inside a length"),
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("standard input can not be read"),
        }
    }
    Ok(Some(i32::from_be_bytes(length)))
}

/// So many bytes; a negative length is a null value.
fn bytes(input: &mut impl Read, length: i32) -> anyhow::Result<Option<Vec<u8>>> {
    let Ok(length) = usize::try_from(length) else {
        ensure!(length == -1, "{length} is no length; write frames with `kcat -C ... -f '%R%s'`");
        return Ok(None);
    };
    ensure!(
        length <= INPUT_BYTES_MAX,
        "a length of {length} bytes is over the limit of {INPUT_BYTES_MAX}: is this `kcat -C ... -f '%R%s'`?"
    );
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).with_context(|| format!("it ends inside a value of {length} bytes"))?;
    Ok(Some(bytes))
}

fn hex(input: &mut impl BufRead) -> anyhow::Result<Option<Frame>> {
    loop {
        let mut line = String::new();
        let limit = u64::try_from(2 * INPUT_BYTES_MAX + 2)?;
        if input.by_ref().take(limit).read_line(&mut line).context("standard input can not be read")? == 0 {
            return Ok(None);
        }
        let digits = line.trim();
        if digits.is_empty() {
            continue;
        }
        ensure!(
            digits.is_ascii() && digits.len().is_multiple_of(2),
            "a frame is pairs of hexadecimal digits"
        );
        let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16);
        let value: Result<Vec<u8>, _> = (0..digits.len()).step_by(2).map(pair).collect();
        return Ok(Some(Frame { key: None, value: Some(value.context("not hexadecimal")?) }));
    }
}

fn one(input: &mut impl Read) -> anyhow::Result<Option<Frame>> {
    let mut value = Vec::new();
    let limit = u64::try_from(INPUT_BYTES_MAX)?;
    input.take(limit).read_to_end(&mut value).context("standard input can not be read")?;
    Ok(Some(Frame { key: None, value: Some(value) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_kcat() {
        let mut input = &[0, 0, 0, 2, 7, 8, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0][..];
        assert_eq!(lengths(&mut input).unwrap().unwrap().value, Some(vec![7, 8]));
        assert_eq!(lengths(&mut input).unwrap().unwrap().value, None);
        assert_eq!(lengths(&mut input).unwrap().unwrap().value, Some(Vec::new()));
        assert!(lengths(&mut input).unwrap().is_none());
        let mut input = &b"1 k\0\0\0\x01\x09"[..];
        let frame = keys_and_lengths(&mut input).unwrap().unwrap();
        assert_eq!((frame.key, frame.value), (Some(vec![b'k']), Some(vec![9])));
    }

    #[test]
    fn input_of_another_form_is_an_error() {
        for wrong in [&b"{\"a\":1}"[..], &[0, 0][..], &[0, 0, 0, 9, 1][..], &[0xff, 0xff, 0xff, 0xfe][..]] {
            assert!(lengths(&mut &*wrong).is_err(), "{wrong:?}");
        }
        assert!(hex(&mut &b"0g"[..]).is_err());
        assert!(hex(&mut &b"\n \n"[..]).unwrap().is_none());
    }
}
