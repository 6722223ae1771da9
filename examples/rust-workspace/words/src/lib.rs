//! Words of a text.

use smallvec::SmallVec;

/// The words, in order.
pub fn words(text: &str) -> SmallVec<[&str; 8]> {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn spaces_part_words() {
        assert_eq!(super::words(" a  b ").as_slice(), ["a", "b"]);
    }
}
