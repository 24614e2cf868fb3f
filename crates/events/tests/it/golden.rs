//! Golden bytes: frames that were released must be read for ever, and written the same.

use std::fmt::Debug;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use waybill_events::Published;
use waybill_messaging::codec::{decode, encode};

use crate::samples::{Visit, visit_all};
use crate::schemas;

/// A file under schemas/golden/: one version of one message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    doc: String,
    name: String,
    id: u32,
    cases: Vec<Case>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    /// The whole frame in hexadecimal.
    frame: String,
    /// The value as it lies on the wire: ids as text, times as numbers.
    value: Value,
}

/// `golden/orders/OrderPlaced.1.json`: service, message, schema id.
fn path_of<T: Published>() -> PathBuf {
    let service = T::NAME.split('.').nth(1).unwrap();
    schemas().join(format!("golden/{service}/{}.{}.json", T::TYPE, T::SCHEMA_ID))
}

#[test]
fn golden_bytes_are_read_and_written_the_same() {
    struct Check;
    impl Visit for Check {
        fn visit<T: Published + Serialize + DeserializeOwned + Debug + PartialEq>(
            &mut self,
            cases: &[(&str, T)],
        ) {
            let path = path_of::<T>();
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
                panic!(
                    "{}: {error}; `cargo test -p waybill-events -- --ignored write_missing_golden` makes it",
                    path.display()
                )
            });
            let golden: Golden = serde_json::from_str(&text).unwrap();
            assert_eq!((golden.name.as_str(), golden.id), (T::NAME, T::SCHEMA_ID));
            assert_eq!(golden.cases.len(), cases.len(), "{}: cases", T::NAME);
            for (committed, (name, value)) in golden.cases.iter().zip(cases) {
                let frame = from_hex(&committed.frame);
                let read: T = decode(&frame).unwrap();
                assert_eq!((committed.case.as_str(), &read), (*name, value), "{}", T::NAME);
                assert_eq!(to_hex(&encode(&read).unwrap()), committed.frame, "{} {name}", T::NAME);
                assert_eq!(serde_json::to_value(&read).unwrap(), committed.value, "{} {name}", T::NAME);
                for length in 0..frame.len() {
                    assert!(decode::<T>(&frame[..length]).is_err(), "{} cut to {length}", T::NAME);
                }
            }
        }
    }
    visit_all(&mut Check);
}

/// Not a test: makes the golden file of a new message or version. Never touches one that is there.
#[test]
#[ignore = "writes into schemas/golden/; run it by name when a message was added"]
fn write_missing_golden() {
    struct Write;
    impl Visit for Write {
        fn visit<T: Published + Serialize + DeserializeOwned + Debug + PartialEq>(
            &mut self,
            cases: &[(&str, T)],
        ) {
            let path = path_of::<T>();
            if path.exists() {
                return;
            }
            let cases = cases.iter().map(|(case, value)| Case {
                case: (*case).to_owned(),
                frame: to_hex(&encode(value).unwrap()),
                value: serde_json::to_value(value).unwrap(),
            });
            let golden = Golden {
                doc: format!("Frames of {} that every later version reads; never changed.", T::NAME),
                name: T::NAME.to_owned(),
                id: T::SCHEMA_ID,
                cases: cases.collect(),
            };
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, serde_json::to_string_pretty(&golden).unwrap() + "\n").unwrap();
        }
    }
    visit_all(&mut Write);
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "an odd number of hexadecimal digits");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
