//! Cutting a batch into waves, in which no key comes twice.

use std::collections::HashMap;

/// The wave of each item: how many earlier items have its key. So a wave holds a key at most once, waves in their
/// order keep each key's order, and there are as many as the most frequent key has items.
pub(super) fn numbers<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    keys.into_iter()
        .map(|key| {
            let count = seen.entry(key).or_insert(0);
            let wave = *count;
            *count += 1;
            wave
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn repeats_of_a_key_wait_for_the_next_wave() {
        assert_eq!(numbers(["a", "b", "a", "c", "a", "b"]), [0, 0, 1, 0, 2, 1]);
        assert!(numbers([]).is_empty());
    }

    proptest! {
        #[test]
        fn waves_hold_a_key_once_and_keep_its_order(keys in prop::collection::vec("[a-e]", 0..60)) {
            let waves = numbers(keys.iter().map(String::as_str));
            prop_assert_eq!(waves.len(), keys.len());
            let mut taken = HashSet::new();
            for (place, key) in keys.iter().enumerate() {
                prop_assert!(taken.insert((waves[place], key)), "{key} twice in a wave");
                let before = keys[..place].iter().zip(&waves).filter(|(k, _)| *k == key).map(|(_, w)| *w);
                prop_assert!(before.max().is_none_or(|last| last < waves[place]), "{key} out of order");
            }
            let count = waves.iter().max().map_or(0, |last| last + 1);
            let most = keys.iter().map(|k| keys.iter().filter(|o| *o == k).count()).max().unwrap_or(0);
            prop_assert_eq!(count, most, "no more waves than needed");
        }
    }
}
