//! Inputs near the seeds, the same for the same number.
//!
//! A few steps are taken from a seed: bits and bytes change, pieces go, come twice or come from another seed, words and
//! numbers of one place stand in another. That finds what is wrong near the ground; what lies deeper takes libFuzzer,
//! which sees what code an input reaches.

/// The largest input. What the readers bound has a test of its own.
const MAX_SIZE: usize = 64 << 10;

/// Numbers at which arithmetic goes wrong.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "7",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "1e308",
];

/// Makes inputs of seeds.
#[derive(Debug)]
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

/// Random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("below a usize")
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }

    /// A piece of so many bytes: short ones are likelier.
    fn piece(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = 1 << self.below(11);
        start..(start + self.below(most) + 1).min(length)
    }
}

impl Mutator {
    /// Of these seeds.
    pub fn new(seeds: Vec<Vec<u8>>) -> Self {
        let mut words: Vec<Vec<u8>> = seeds
            .iter()
            .flat_map(|seed| seed.split(|byte| !byte.is_ascii_alphanumeric() && !b"_-.".contains(byte)))
            .filter(|word| (2..40).contains(&word.len()))
            .map(<[u8]>::to_vec)
            .collect();
        words.sort();
        words.dedup();
        Self { seeds, words }
    }

    /// The input of this number. The first are the seeds themselves.
    pub fn input(&self, number: u64) -> Vec<u8> {
        if let Some(seed) = usize::try_from(number).ok().and_then(|number| self.seeds.get(number)) {
            return seed.clone();
        }
        let mut random = Random(number);
        let mut bytes = random.pick(&self.seeds).cloned().unwrap_or_default();
        for _ in 0..=random.below(6) {
            self.step(&mut bytes, &mut random);
        }
        bytes.truncate(MAX_SIZE);
        bytes
    }

    fn step(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(bytes.len());
        match random.below(12) {
            0 | 1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                let value = random.next().to_le_bytes()[0];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *random.pick(&[0, 0xff, 0x80, b'/', b'\n', b'0', value]).expect("some");
                }
            }
            3 => {
                let piece = random.piece(bytes.len());
                bytes.drain(piece);
            }
            4 => {
                let piece = bytes[random.piece(bytes.len())].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            5 => {
                let other = random.pick(&self.seeds).map(Vec::as_slice).unwrap_or_default();
                let piece = other[random.piece(other.len())].to_vec();
                let place = random.piece(bytes.len());
                bytes.splice(place, piece);
            }
            6 | 7 => {
                let word = random.pick(&self.words).cloned().unwrap_or_default();
                let found = bytes[at.min(bytes.len())..].iter().position(u8::is_ascii_alphanumeric);
                let start = at + found.unwrap_or(0);
                let rest = &bytes[start.min(bytes.len())..];
                let length = rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(rest.len());
                let start = start.min(bytes.len());
                bytes.splice(start..start + length, word);
            }
            8 => {
                let digits = bytes.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit());
                let places: Vec<usize> = digits.map(|(place, _)| place).collect();
                let Some(&start) = random.pick(&places) else { return };
                let rest = &bytes[start..];
                let length = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
                let number = random.pick(&NUMBERS).expect("some");
                bytes.splice(start..start + length, number.bytes());
            }
            9 => bytes.truncate(at),
            // Whole blocks, lines or pieces change their places.
            10 => {
                let unit = *random.pick(&[512, 16, 1]).expect("some");
                let (one, other) = (random.below(bytes.len() / unit), random.below(bytes.len() / unit));
                if (one.max(other) + 1) * unit <= bytes.len() {
                    for byte in 0..unit {
                        bytes.swap(one * unit + byte, other * unit + byte);
                    }
                }
            }
            _ => {
                let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
                let (one, other) = (random.below(lines.len()), random.below(lines.len()));
                if random.below(2) == 0 {
                    lines.swap(one, other);
                } else {
                    lines.insert(one, lines[other]);
                }
                *bytes = lines.join(&b'\n');
            }
        }
    }
}
