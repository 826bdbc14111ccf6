//! Sorting, with one instance of the standard sort for all types.
//!
//! Every type and every key that `slice::sort` is called with costs about 4 kB of program. These
//! functions sort the places of the elements and then move each element once: slower, and a tenth
//! of the size. Equal elements keep their order. Code of tests may use the standard sort.

use std::cmp::Ordering;

/// Sorts as [`slice::sort`] does.
pub fn sort<T: Ord>(items: &mut Vec<T>) {
    sort_by(items, T::cmp);
}

/// Sorts as [`slice::sort_by_key`] does.
pub fn sort_by_key<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}

/// Sorts as [`slice::sort_by`] does.
pub fn sort_by<T>(items: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering) {
    let places = places(items.len(), &|a, b| match (items.get(a), items.get(b)) {
        (Some(a), Some(b)) => compare(a, b),
        (None, _) | (_, None) => Ordering::Equal,
    });
    let mut taken: Vec<Option<T>> = std::mem::take(items).into_iter().map(Some).collect();
    items.extend(places.into_iter().filter_map(|place| taken.get_mut(place)?.take()));
}

/// The places of the elements, in the order of the elements.
fn places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|a, b| compare(*a, *b));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sorts_as_the_standard_library_does() {
        let mut numbers: Vec<(u32, usize)> = (0..200).map(|n| ((n as u32 * 7919) % 23, n)).collect();
        let (mut ours, mut by_key) = (numbers.clone(), numbers.clone());
        numbers.sort_by_key(|(number, _)| *number);
        sort_by_key(&mut by_key, |(number, _)| *number);
        assert_eq!(by_key, numbers, "equal ones keep their order");
        numbers.sort_by(|a, b| b.cmp(a));
        sort_by(&mut ours, |a, b| b.cmp(a));
        assert_eq!(ours, numbers);
        numbers.sort();
        sort(&mut ours);
        assert_eq!(ours, numbers);
        sort::<String>(&mut Vec::new());
    }
}
