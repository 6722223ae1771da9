//! Detach keys: what is typed to leave a container without ending its program.
//!
//! ```text
//!   ctrl-p,ctrl-q      a sequence of single characters and ctrl-<a letter or @ [ \ ] ^ _>
//! ```

use std::str::FromStr;

/// A sequence, and how much of it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

/// What typing led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing; it goes on.
    On,
    /// The whole sequence was typed.
    Detach,
}

impl Default for DetachKeys {
    /// Docker's: ctrl-p ctrl-q.
    fn default() -> Self {
        Self { keys: vec![16, 17], typed: 0 }
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "invalid detach keys ({text}): expected characters and ctrl-<letter>, separated by commas"
            )
        };
        let key = |word: &str| -> Result<u8, String> {
            if let Some(letter) = word.strip_prefix("ctrl-") {
                return match letter.as_bytes() {
                    [letter @ b'a'..=b'z'] => Ok(letter - b'a' + 1),
                    [letter @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(letter - b'@'),
                    _ => Err(bad()),
                };
            }
            match word.as_bytes() {
                [byte] if byte.is_ascii() => Ok(*byte),
                _ => Err(bad()),
            }
        };
        // An empty text is how a user says: none.
        let keys =
            if text.is_empty() { Vec::new() } else { text.split(',').map(key).collect::<Result<_, _>>()? };
        Ok(Self { keys, typed: 0 })
    }
}

impl DetachKeys {
    /// What is to be typed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.keys
    }

    /// Takes what was typed: what goes on to the program, and whether to leave. The beginning of the
    /// sequence is kept back until it is clear that it is none.
    pub fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, Typed) {
        let mut out = Vec::with_capacity(bytes.len());
        if self.keys.is_empty() {
            return (bytes.to_vec(), Typed::On);
        }
        for byte in bytes {
            if self.keys.get(self.typed) != Some(byte) {
                out.extend_from_slice(self.keys.get(..self.typed).unwrap_or_default());
                self.typed = 0;
            }
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (out, Typed::Detach);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, Typed::On)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_dockers() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.keys);
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(keys("ctrl-a,d"), Ok(vec![1, b'd']));
        assert_eq!(keys("ctrl-@,ctrl-[,ctrl-_"), Ok(vec![0, 27, 31]));
        assert_eq!(keys(""), Ok(vec![]));
        for bad in ["ctrl-", "ctrl-P", "ab", "ctrl-a,", "ctrl-ä"] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_found_and_nothing_else_is_kept() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.feed(b"ab\x10"), (b"ab".to_vec(), Typed::On));
        assert_eq!(keys.feed(b"\x11"), (Vec::new(), Typed::Detach));
        let mut keys = DetachKeys::default();
        assert_eq!(keys.feed(b"\x10\x10\x11"), (b"\x10".to_vec(), Typed::Detach));
        assert_eq!(keys.feed(b"\x10x\x11"), (b"\x10x\x11".to_vec(), Typed::On));
        let mut none: DetachKeys = "".parse().unwrap();
        assert_eq!(none.feed(b"\x10\x11"), (b"\x10\x11".to_vec(), Typed::On));
    }
}
