//! From rules to a classic BPF program.
//!
//! ```text
//!   load arch ─ x86_64? ─ load nr ─ x32? ┬ tree over x32 numbers
//!      │                                 └ tree over x86_64 numbers
//!      ├─ x86? ─ load nr ─ tree …
//!      └─ any other: kill the process
//! ```
//!
//! A tree is a binary search over ranges of numbers with the same outcome, so a
//! call costs some eight comparisons instead of hundreds. Trees share their ends: the kernel
//! checks and translates each instruction at every start of a container.

use onggi_sys::seccomp::Instruction;

use super::tables::{Abi, X32_BIT};

/// A comparison of one argument; 64 bits wide, as the kernel passes arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) argument: u8,
    /// How it is compared.
    pub(super) compare: Compare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessEqual(u64),
    Greater(u64),
    GreaterEqual(u64),
    /// `argument & mask == value`
    Masked {
        mask: u64,
        value: u64,
    },
}

/// What happens to calls of one number: the first branch all of whose conditions
/// hold, else the fallback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) branches: Vec<(Vec<Condition>, u32)>,
    pub(super) fallback: u32,
}

impl Outcome {
    pub(super) fn plain(action: u32) -> Self {
        Self { branches: Vec::new(), fallback: action }
    }
}

/// The calls of one ABI that don't get the default, sorted by number.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) abi: Abi,
    pub(super) calls: Vec<(u32, Outcome)>,
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Calls of an ABI that the filter doesn't list.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;

/// Return with an error (`SECCOMP_RET_ERRNO`), and the bits of an outcome that say so.
const ERRNO: u32 = 0x0005_0000;
const ACTION: u32 = 0xffff_0000;
const ENOSYS: u32 = 38;

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The program of these blocks; calls that no block lists get `default`.
pub(super) fn program(blocks: &[Block], default: u32) -> Vec<Instruction> {
    let mut code = Backwards::default();
    let mut next = code.give(KILL_PROCESS);
    let mut archs: Vec<u32> = Vec::new();
    for block in blocks {
        if !archs.contains(&block.abi.audit()) {
            archs.push(block.abi.audit());
        }
    }
    for arch in archs.into_iter().rev() {
        let mut body = |abi: Abi| match blocks.iter().find(|block| block.abi == abi) {
            Some(block) => code.tree(&segments(&block.calls, default)),
            None => code.give(KILL_PROCESS),
        };
        let entry = if arch == Abi::X86_64.audit() {
            let has_x32 = blocks.iter().any(|block| block.abi == Abi::X32);
            let mut x32 = body(Abi::X32);
            let native = body(Abi::X86_64);
            if !has_x32 {
                // A call that a debugger took away has the number -1, and is no call of x32.
                x32 = code.test(op(JUMP_EQUAL, 0, 0, NO_CALL), native, x32);
            }
            code.test(op(JUMP_GREATER_EQUAL, 0, 0, X32_BIT), x32, native)
        } else {
            let abi = blocks.iter().map(|block| block.abi).find(|abi| abi.audit() == arch);
            abi.map_or(next, &mut body)
        };
        let entry = code.before(op(LOAD, 0, 0, NUMBER), entry);
        next = code.test(op(JUMP_EQUAL, 0, 0, arch), entry, next);
    }
    code.before(op(LOAD, 0, 0, ARCH), next);
    code.0.reverse();
    code.0
}

/// The number of a call that is not to be made (ptrace(2)).
const NO_CALL: u32 = u32::MAX;

/// A program from its end to its beginning: jumps lead forward only, so what they lead to is there first,
/// and the same end serves many.
#[derive(Default)]
struct Backwards(Vec<Instruction>);

/// Where an instruction is, counted from the end.
type Place = usize;

/// How far a conditional jump reaches.
const REACH: usize = 255;

impl Backwards {
    fn push(&mut self, instruction: Instruction) -> Place {
        self.0.push(instruction);
        self.0.len() - 1
    }

    /// How many instructions lie between a place and one that is appended now.
    fn distance(&self, place: Place) -> usize {
        self.0.len() - place - 1
    }

    /// The place, or a plain jump to it if it is farther than a test right before would reach.
    fn near(&mut self, place: Place) -> Place {
        match self.distance(place) {
            // Another jump of the same test may come in between.
            0..REACH => place,
            far => self.push(op(JUMP, 0, 0, u32::try_from(far).unwrap_or(u32::MAX))),
        }
    }

    /// `if test { yes } else { no }`
    fn test(&mut self, test: Instruction, yes: Place, no: Place) -> Place {
        let (yes, no) = (self.near(yes), self.near(no));
        let short = |distance: usize| u8::try_from(distance).unwrap_or(u8::MAX);
        let (jt, jf) = (short(self.distance(yes)), short(self.distance(no)));
        self.push(Instruction { jt, jf, ..test })
    }

    /// An instruction that is followed by the one at `place`.
    fn before(&mut self, instruction: Instruction, place: Place) -> Place {
        if self.distance(place) > 0 {
            let far = u32::try_from(self.distance(place)).unwrap_or(u32::MAX);
            self.push(op(JUMP, 0, 0, far));
        }
        self.push(instruction)
    }

    /// A return of this value: one that is there and near enough, else a new one.
    fn give(&mut self, value: u32) -> Place {
        let wanted = op(RETURN, 0, 0, value);
        let near = self.0.iter().rev().take(REACH).position(|one| *one == wanted);
        match near {
            Some(back) => self.0.len() - 1 - back,
            None => self.push(wanted),
        }
    }

    /// The search through ranges of numbers.
    fn tree(&mut self, segments: &[(u32, Outcome)]) -> Place {
        match segments {
            [] => self.give(KILL_PROCESS),
            [(_, outcome)] if outcome.branches.is_empty() => self.give(outcome.fallback),
            [(_, outcome)] => {
                let forward = leaf(outcome);
                self.0.extend(forward.into_iter().rev());
                self.0.len() - 1
            }
            _ => {
                let (low, high) = segments.split_at(segments.len() / 2);
                let start = high.first().map_or(0, |(start, _)| *start);
                let high = self.tree(high);
                let low = self.tree(low);
                self.test(op(JUMP_GREATER_EQUAL, 0, 0, start), high, low)
            }
        }
    }
}

/// Ranges of numbers with one outcome: `(first number, outcome)`, sorted, from 0.
fn segments(calls: &[(u32, Outcome)], default: u32) -> Vec<(u32, Outcome)> {
    let mut list: Vec<(u32, Outcome)> = vec![(0, Outcome::plain(default))];
    for (number, outcome) in calls {
        // Where the previous call ended a default range starts; drop it if empty.
        if list.last().is_some_and(|(start, _)| start == number) {
            list.pop();
        }
        if list.last().is_none_or(|(_, last)| last != outcome || !last.branches.is_empty()) {
            list.push((*number, outcome.clone()));
        }
        if let Some(next) = number.checked_add(1) {
            list.push((next, Outcome::plain(default)));
        }
    }
    // Numbers above all that the rules name are calls that their author didn't know of. A program that
    // tries a new one must hear that it isn't there, else it won't fall back to the old one.
    if default & ACTION == ERRNO
        && !calls.is_empty()
        && let Some((_, outcome)) = list.last_mut()
    {
        *outcome = Outcome::plain(ERRNO | ENOSYS);
    }
    list.dedup_by(|next, kept| next.1 == kept.1 && kept.1.branches.is_empty());
    list
}

fn leaf(outcome: &Outcome) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (conditions, action) in &outcome.branches {
        // Compiled back to front: what a failed condition jumps over is known.
        let mut tail = vec![op(RETURN, 0, 0, *action)];
        for condition in conditions.iter().rev() {
            let over = u8::try_from(tail.len()).unwrap_or(u8::MAX);
            let mut test = compare(*condition, over);
            test.extend(tail);
            tail = test;
        }
        code.extend(tail);
    }
    code.push(op(RETURN, 0, 0, outcome.fallback));
    code
}

/// Falls through if the condition holds, else jumps over `over` instructions more.
fn compare(condition: Condition, over: u8) -> Vec<Instruction> {
    let low_word = ARGUMENTS + 8 * u32::from(condition.argument);
    let (low_at, high_at) =
        if cfg!(target_endian = "little") { (low_word, low_word + 4) } else { (low_word + 4, low_word) };
    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let load = |at| op(LOAD, 0, 0, at);
    // In each form the last instruction's "no" skips `over`, an earlier one's
    // skips the rest of the form as well.
    match condition.compare {
        Compare::Equal(value) => {
            let (high, low) = halves(value);
            vec![
                load(high_at),
                op(JUMP_EQUAL, 0, over.saturating_add(2), high),
                load(low_at),
                op(JUMP_EQUAL, 0, over, low),
            ]
        }
        Compare::NotEqual(value) => {
            let (high, low) = halves(value);
            vec![load(high_at), op(JUMP_EQUAL, 0, 2, high), load(low_at), op(JUMP_EQUAL, over, 0, low)]
        }
        Compare::Masked { mask, value } => {
            let ((mask_high, mask_low), (high, low)) = (halves(mask), halves(value));
            vec![
                load(high_at),
                op(AND, 0, 0, mask_high),
                op(JUMP_EQUAL, 0, over.saturating_add(3), high),
                load(low_at),
                op(AND, 0, 0, mask_low),
                op(JUMP_EQUAL, 0, over, low),
            ]
        }
        Compare::Greater(value) => {
            ordered(load(high_at), load(low_at), halves(value), JUMP_GREATER, over, false)
        }
        Compare::GreaterEqual(value) => {
            ordered(load(high_at), load(low_at), halves(value), JUMP_GREATER_EQUAL, over, false)
        }
        Compare::LessEqual(value) => {
            ordered(load(high_at), load(low_at), halves(value), JUMP_GREATER, over, true)
        }
        Compare::Less(value) => {
            ordered(load(high_at), load(low_at), halves(value), JUMP_GREATER_EQUAL, over, true)
        }
    }
}

/// `value > k` or `value >= k` over two halves, or the opposite if `negated`.
fn ordered(
    load_high: Instruction,
    load_low: Instruction,
    (high, low): (u32, u32),
    low_jump: u16,
    over: u8,
    negated: bool,
) -> Vec<Instruction> {
    let past = |inside: u8| over.saturating_add(inside);
    if negated {
        vec![
            load_high,
            op(JUMP_GREATER, past(3), 0, high),
            op(JUMP_EQUAL, 0, 2, high),
            load_low,
            op(low_jump, over, 0, low),
        ]
    } else {
        vec![
            load_high,
            op(JUMP_GREATER, 3, 0, high),
            op(JUMP_EQUAL, 0, past(2), high),
            load_low,
            op(low_jump, 0, over, low),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(code: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCH => arch,
            _ => {
                let at = offset - ARGUMENTS;
                let argument = arguments[(at / 8) as usize];
                let (high, low) = (argument >> 32, argument & 0xffff_ffff);
                u32::try_from(if at.is_multiple_of(8) { low } else { high }).unwrap()
            }
        };
        let (mut pc, mut a) = (0usize, 0u32);
        loop {
            let i = code[pc];
            pc += 1;
            let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LOAD => a = word(i.k),
                AND => a &= i.k,
                JUMP => pc += i.k as usize,
                JUMP_EQUAL => pc += jump(a == i.k),
                JUMP_GREATER => pc += jump(a > i.k),
                JUMP_GREATER_EQUAL => pc += jump(a >= i.k),
                RETURN => return i.k,
                code => panic!("{code}"),
            }
        }
    }

    #[test]
    fn calls_that_no_rule_could_know_are_not_there() {
        let of = |default: u32| {
            let calls = vec![(5, Outcome::plain(7)), (9, Outcome::plain(7))];
            let code = program(&[Block { abi: Abi::X86_64, calls }], default);
            [4, 5, 6, 9, 10, 1000].map(|number| run(&code, Abi::X86_64.audit(), number, [0; 6]))
        };
        let denied = ERRNO | 1;
        assert_eq!(of(denied), [denied, 7, denied, 7, ERRNO | ENOSYS, ERRNO | ENOSYS]);
        let killed = KILL_PROCESS;
        assert_eq!(of(killed), [killed, 7, killed, 7, killed, killed]);
    }

    #[test]
    fn every_comparison_at_its_edges() {
        let values = [0, 1, 7, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0007, u64::MAX - 1, u64::MAX];
        for value in values {
            for compare in [
                Compare::Equal(value),
                Compare::NotEqual(value),
                Compare::Less(value),
                Compare::LessEqual(value),
                Compare::Greater(value),
                Compare::GreaterEqual(value),
                Compare::Masked { mask: 0xff_0000_00ff, value: value & 0xff_0000_00ff },
            ] {
                let outcome = Outcome {
                    branches: vec![(
                        vec![
                            Condition { argument: 3, compare },
                            Condition { argument: 0, compare: Compare::Equal(1) },
                        ],
                        7,
                    )],
                    fallback: 9,
                };
                let code = program(&[Block { abi: Abi::X86_64, calls: vec![(5, outcome)] }], 1);
                for argument in values {
                    let holds = match compare {
                        Compare::Equal(v) => argument == v,
                        Compare::NotEqual(v) => argument != v,
                        Compare::Less(v) => argument < v,
                        Compare::LessEqual(v) => argument <= v,
                        Compare::Greater(v) => argument > v,
                        Compare::GreaterEqual(v) => argument >= v,
                        Compare::Masked { mask, value } => argument & mask == value,
                    };
                    let got = run(&code, 0xc000_003e, 5, [1, 0, 0, argument, 0, 0]);
                    assert_eq!(got, if holds { 7 } else { 9 }, "{argument:#x} {compare:x?}");
                    assert_eq!(run(&code, 0xc000_003e, 5, [0, 0, 0, argument, 0, 0]), 9);
                }
            }
        }
    }

    #[test]
    fn a_wide_tree_finds_every_number() {
        let action = |number: u32| 100 + number % 7;
        let calls = (0..900).filter(|n| n % 3 != 0).map(|n| (n, Outcome::plain(action(n)))).collect();
        let code = program(&[Block { abi: Abi::X86, calls }], 1);
        for number in 0..1000 {
            let expected = if number < 900 && number % 3 != 0 { action(number) } else { 1 };
            assert_eq!(run(&code, Abi::X86.audit(), number, [0; 6]), expected, "{number}");
        }
        assert_eq!(run(&code, Abi::X86_64.audit(), 1, [0; 6]), KILL_PROCESS);
    }

    #[test]
    fn x32_and_native_are_apart() {
        let one = |abi: Abi, n| Block { abi, calls: vec![(abi.in_data(n), Outcome::plain(7))] };
        let code = program(&[one(Abi::X86_64, 3), one(Abi::X32, 4)], 1);
        assert_eq!(run(&code, Abi::X86_64.audit(), 3, [0; 6]), 7);
        assert_eq!(run(&code, Abi::X86_64.audit(), 4, [0; 6]), 1);
        assert_eq!(run(&code, Abi::X86_64.audit(), 4 | X32_BIT, [0; 6]), 7);
        let native = program(&[one(Abi::X86_64, 3)], 1);
        assert_eq!(run(&native, Abi::X86_64.audit(), 3 | X32_BIT, [0; 6]), KILL_PROCESS);
        // As libseccomp: a call that a tracer took away ends nobody.
        assert_eq!(run(&native, Abi::X86_64.audit(), u32::MAX, [0; 6]), 1);
    }
}
