//! Which devices the processes of a group may use (runtime-spec, "Allowed Device list").
//!
//! The rules are taken in their order, and for each kind of access (read, write, make a
//! node) the last rule that fits decides; what no rule fits is refused. Behind the rules
//! of the specification come those for what every container may use.
//!
//! ```text
//!  version 1   one line a rule into devices.deny or devices.allow
//!  version 2   one BPF program, the last rule first:
//!
//!    r2 = device type    r3 = wanted access    r4 = major    r5 = minor
//!    for each rule   if type, major or minor differ: next rule
//!                    denies:  if r3 & access: return 0
//!                    allows:  r3 &= ~access; if r3 == 0: return 1
//!    return 0
//! ```

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use onggi_sys::bpf::Instruction;

use crate::error::{Error, Result};

/// `BPF_DEVCG_ACC_…`
const MAKE: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MAKE | READ | WRITE;

/// More rules than any list has; the kernel's verifier takes a million instructions.
const MAX_RULES: usize = 4096;

/// Block or character devices (`BPF_DEVCG_DEV_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Character = 2,
}

/// One rule; `None` is "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

const fn character(major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind: Some(Kind::Character), major, minor, access }
}

/// Any node may be made (used only as far as other rules allow); the standard nodes and terminals.
const STANDARD: [Rule; 10] = [
    character(None, None, MAKE),
    Rule { allow: true, kind: Some(Kind::Block), major: None, minor: None, access: MAKE },
    character(Some(1), Some(3), ALL),
    character(Some(1), Some(5), ALL),
    character(Some(1), Some(7), ALL),
    character(Some(1), Some(8), ALL),
    character(Some(1), Some(9), ALL),
    character(Some(5), Some(0), ALL),
    character(Some(5), Some(2), ALL),
    character(Some(136), None, ALL),
];

impl Rule {
    fn is_for_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    /// In the words of version 1, where the type `a` means all devices whatever else is said.
    fn lines(self) -> Vec<String> {
        if self.is_for_all() {
            return vec!["a *:* rwm".to_owned()];
        }
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        let letters = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')];
        let access: String =
            letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| *letter).collect();
        let kinds = [(Kind::Block, 'b'), (Kind::Character, 'c')];
        let kinds = kinds.iter().filter(|(kind, _)| self.kind.is_none_or(|own| own == *kind));
        kinds.map(|(_, letter)| format!("{letter} {major}:{minor} {access}")).collect()
    }
}

/// The rules of a specification, with what goes before and behind them; none for none.
pub(super) fn rules(list: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    if list.len() > MAX_RULES {
        return Err(Error::invalid("linux.resources.devices", format!("there are more than {MAX_RULES}")));
    }
    let mut rules = Vec::with_capacity(list.len() + STANDARD.len() + 1);
    for one in list {
        rules.push(rule(one)?);
    }
    let nothing = Rule { allow: false, kind: None, major: None, minor: None, access: ALL };
    if rules.first().is_some_and(|first| !first.is_for_all()) {
        rules.insert(0, nothing);
    }
    rules.extend(STANDARD);
    Ok(rules)
}

fn rule(one: &LinuxDeviceCgroup) -> Result<Rule> {
    let invalid = |why: String| Error::invalid("linux.resources.devices", why);
    let kind = match one.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Character),
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::P) => return Err(invalid("a rule can't be for FIFOs (type \"p\")".into())),
    };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => {
            u32::try_from(number).map(Some).map_err(|_| invalid(format!("{number} is no device number")))
        }
    };
    let mut access = 0;
    for letter in one.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MAKE,
            other => return Err(invalid(format!("access {other:?} is not r, w or m"))),
        };
    }
    let access = if access == 0 { ALL } else { access };
    Ok(Rule { allow: one.allow(), kind, major: number(one.major())?, minor: number(one.minor())?, access })
}

/// For version 1: which file takes which line.
pub(super) fn lines(rules: &[Rule]) -> Vec<(&'static str, String)> {
    let file = |rule: &Rule| if rule.allow { "devices.allow" } else { "devices.deny" };
    rules.iter().flat_map(|rule| rule.lines().into_iter().map(|line| (file(rule), line))).collect()
}

/// For version 2: the program.
pub(super) fn program(rules: &[Rule]) -> Vec<Instruction> {
    const TYPE: u8 = 2;
    const WANTED: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    let mut code = vec![
        load(TYPE, 0),
        operate(MOVE_REGISTER, WANTED | TYPE << 4, 0),
        operate(AND, TYPE, 0xffff),
        operate(SHIFT_RIGHT, WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let mut conditions: Vec<(u8, u32)> = Vec::new();
        conditions.extend(rule.kind.map(|kind| (TYPE, kind as u32)));
        conditions.extend(rule.major.map(|major| (MAJOR, major)));
        conditions.extend(rule.minor.map(|minor| (MINOR, minor)));
        let verdict = [operate(MOVE, 0, i32::from(rule.allow)), EXIT];
        let mut body: Vec<Instruction> = Vec::new();
        if rule.access == ALL {
            body.extend(verdict);
        } else if rule.allow {
            body.push(operate(AND, WANTED, i32::from(!rule.access & ALL)));
            body.push(jump(UNLESS_EQUAL, WANTED, 0, 2));
            body.extend(verdict);
        } else {
            body.push(jump(IF_ANY, WANTED, i32::from(rule.access), 1));
            body.push(jump(ALWAYS, 0, 0, 2));
            body.extend(verdict);
        }
        let count = conditions.len();
        for (at, (register, value)) in conditions.into_iter().enumerate() {
            let skipped = count - at - 1 + body.len();
            code.push(jump(UNLESS_EQUAL, register, value.cast_signed(), skipped));
        }
        code.extend(body);
        // The verifier refuses what can never be reached.
        if rule.is_for_all() {
            return code;
        }
    }
    code.extend([operate(MOVE, 0, 0), EXIT]);
    code
}

// Operations with 32 bits, so that no number is extended by a sign.
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const LOAD_WORD: u8 = 0x61;
const ALWAYS: u8 = 0x05;
const UNLESS_EQUAL: u8 = 0x56;
const IF_ANY: u8 = 0x46;
const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

/// A field of the question (`struct bpf_cgroup_dev_ctx`, which register 1 points to).
const fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | 1 << 4, offset, immediate: 0 }
}

const fn operate(code: u8, registers: u8, immediate: i32) -> Instruction {
    Instruction { code, registers, offset: 0, immediate }
}

/// Jumps are over one rule at most, some ten instructions.
fn jump(code: u8, register: u8, immediate: i32, skipped: usize) -> Instruction {
    Instruction { code, registers: register, offset: i16::try_from(skipped).unwrap_or(i16::MAX), immediate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str) -> Result<Vec<Rule>> {
        rules(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    /// What the kernel would do with the program.
    fn run(program: &[Instruction], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let question = [u32::from(access) << 16 | kind as u32, major, minor];
        let mut registers = [0_u32; 10];
        let mut at = 0;
        loop {
            let Instruction { code, registers: names, offset, immediate } = program[at];
            let (to, from) = (usize::from(names & 15), usize::from(names >> 4));
            let value = immediate.cast_unsigned();
            at += 1;
            let mut jump_if = |holds: bool| at += if holds { usize::try_from(offset).unwrap() } else { 0 };
            match code {
                LOAD_WORD => registers[to] = question[usize::try_from(offset / 4).unwrap()],
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                ALWAYS => jump_if(true),
                UNLESS_EQUAL => jump_if(registers[to] != value),
                IF_ANY => jump_if(registers[to] & value != 0),
                0x95 => return registers[0] == 1,
                other => panic!("operation {other:#x}"),
            }
        }
    }

    /// The rule of the module's header, word for word.
    fn expected(rules: &[Rule], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let fits = |rule: &&Rule| {
            rule.kind.is_none_or(|own| own == kind)
                && rule.major.is_none_or(|own| own == major)
                && rule.minor.is_none_or(|own| own == minor)
        };
        [MAKE, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let last = rules.iter().filter(fits).rfind(|rule| rule.access & bit != 0);
            last.is_some_and(|rule| rule.allow)
        })
    }

    #[test]
    fn lines_of_version_1() {
        let rules = read(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
                {"allow":true,"major":7,"access":"r"}]"#,
        )
        .unwrap();
        let lines = lines(&rules);
        let line = |file, text: &str| (file, text.to_owned());
        assert_eq!(lines[0], line("devices.deny", "a *:* rwm"));
        assert_eq!(lines[1], line("devices.allow", "c 10:229 rw"));
        // "a 7:* r" would be all devices.
        assert_eq!(lines[2], line("devices.allow", "b 7:* r"));
        assert_eq!(lines[3], line("devices.allow", "c 7:* r"));
        assert_eq!(lines.len(), 4 + STANDARD.len());
        assert_eq!(read("[]").unwrap(), []);
    }

    #[test]
    fn what_is_not_said_is_refused() {
        let only = read(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"}]"#).unwrap();
        assert_eq!(lines(&only)[0].1, "a *:* rwm");
        let program = program(&only);
        assert!(run(&program, Kind::Block, READ, 8, 0));
        assert!(!run(&program, Kind::Block, WRITE, 8, 0) && !run(&program, Kind::Block, READ, 8, 1));
        assert!(run(&program, Kind::Character, ALL, 1, 3) && run(&program, Kind::Block, MAKE, 9, 9));
        assert!(run(&program, Kind::Character, READ | WRITE, 136, 77));
        for bad in [r#"[{"allow":true,"type":"p"}]"#, r#"[{"allow":true,"access":"x"}]"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#).is_err());
    }

    #[test]
    fn all_devices_need_no_more_rules() {
        let all = read(r#"[{"allow":true,"access":"rwm"}]"#).unwrap();
        assert!(run(&program(&all), Kind::Block, ALL, 8, 0));
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let kind = prop::option::of(prop_oneof![Just(Kind::Block), Just(Kind::Character)]);
        let number = || prop::option::of(0_u32..3);
        (any::<bool>(), kind, number(), number(), 1..=ALL)
            .prop_map(|(allow, kind, major, minor, access)| Rule { allow, kind, major, minor, access })
    }

    proptest! {
        #[test]
        fn the_program_does_what_the_rules_say(list in prop::collection::vec(any_rule(), 0..12)) {
            let program = program(&list);
            for kind in [Kind::Block, Kind::Character] {
                for (major, minor) in [(0, 0), (0, 1), (1, 0), (2, 2), (3, 0)] {
                    for access in 1..=ALL {
                        prop_assert_eq!(
                            run(&program, kind, access, major, minor),
                            expected(&list, kind, access, major, minor)
                        );
                    }
                }
            }
        }
    }
}
