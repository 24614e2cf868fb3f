//! What is different between two values, for people: `/total_minor: 2999 -> 3000`.

use json_patch::PatchOperation;
use serde_json::Value;

/// A line a difference; none when they are the same.
pub(crate) fn of(before: &Value, after: &Value) -> Vec<String> {
    let mut now = before.clone();
    let mut lines = Vec::new();
    for operation in json_patch::diff(before, after).0 {
        let path = operation.path().to_string();
        let old = now.pointer(&path).map_or_else(String::new, Value::to_string);
        lines.push(match &operation {
            PatchOperation::Replace(replaced) => format!("{path}: {old} -> {}", replaced.value),
            PatchOperation::Add(added) => format!("{path}: + {}", added.value),
            PatchOperation::Remove(_) => format!("{path}: - {old}"),
            other => other.to_string(),
        });
        // Paths count from what the operations before have made of it.
        if json_patch::patch(&mut now, &[operation]).is_err() {
            break;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_is_a_line() {
        let before = json!({"a": 1, "b": [1, 2, 3], "c": "x"});
        let after = json!({"a": 2, "b": [1, 3], "d": null});
        assert_eq!(
            of(&before, &after),
            ["/a: 1 -> 2", "/b/1: 2 -> 3", "/b/2: - 3", "/d: + null", "/c: - \"x\""]
        );
        assert!(of(&before, &before).is_empty());
    }
}
