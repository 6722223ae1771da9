//! System call filters: from a profile to a program that the kernel takes.
//!
//! A profile comes from the bundle (`linux.seccomp`, any) or is Docker's default,
//! which needs no JSON, no names and no look-ups at run time.

mod compile;
mod docker;
mod precompiled;
mod tables;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use onggi_sys::caps;
use onggi_sys::seccomp::{Flags, Instruction, MAX_INSTRUCTIONS};

use compile::{Block, Compare, Condition, Outcome};
use tables::Abi;

use crate::error::{Error, Result};

/// A filter that is ready to install.
#[derive(Clone, Debug)]
pub struct Filter {
    pub(crate) program: Vec<Instruction>,
    pub(crate) flags: Flags,
}

impl Filter {
    /// Docker's default profile for a process with these capabilities (the
    /// bounding set): most calls for everybody, `mount` and its like only with
    /// `CAP_SYS_ADMIN`, and so on.
    pub fn docker(capabilities: caps::Set) -> Self {
        if capabilities == precompiled::CAPABILITIES
            && let Some(program) = precompiled::program()
        {
            return Self { program, flags: Flags::default() };
        }
        Self::compile_docker(capabilities)
    }

    fn compile_docker(capabilities: caps::Set) -> Self {
        let block = |abi: &Abi| Block { abi: *abi, calls: docker::calls(*abi, capabilities) };
        let blocks: Vec<Block> = Abi::DEFAULT.iter().map(block).collect();
        // What libseccomp sets when nothing else is asked for: no SSBD.
        Self { program: compile::program(&blocks, docker::DEFAULT), flags: Flags::default() }
    }

    /// The filter of a profile of the runtime specification.
    ///
    /// Names that no table has are left out, as the specification says of calls
    /// which an architecture lacks: such a call gets the default action.
    ///
    /// # Errors
    /// [`Error::Invalid`] for arguments above 5, return values above 4095, and
    /// programs that are longer than the kernel takes.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self> {
        let default_errno = profile.default_errno_ret();
        check_errno(default_errno)?;
        let default = profile.default_action().as_u32(default_errno);
        let mut abis: Vec<Abi> =
            profile.architectures().iter().flatten().filter_map(|arch| Abi::of(*arch)).collect();
        if !abis.contains(&Abi::NATIVE) {
            abis.insert(0, Abi::NATIVE);
        }
        abis.dedup();
        let mut blocks: Vec<Block> = Vec::with_capacity(abis.len());
        for abi in abis {
            blocks.push(Block { abi, calls: calls(profile, abi, default)? });
        }
        let program = compile::program(&blocks, default);
        if program.len() > MAX_INSTRUCTIONS {
            return Err(Error::invalid(
                "linux.seccomp",
                format!("compiles to {} instructions, the kernel takes {MAX_INSTRUCTIONS}", program.len()),
            ));
        }
        let mut flags = Flags { listener: wants_listener(profile), ..Flags::default() };
        for flag in profile.flags().iter().flatten() {
            match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => flags.log = true,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => flags.tsync = true,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flags.spec_allow = true,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => flags.wait_killable = true,
            }
        }
        Ok(Self { program, flags })
    }

    /// How many instructions the program has.
    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// Whether the program is empty (it never is).
    pub fn is_empty(&self) -> bool {
        self.program.is_empty()
    }
}

fn wants_listener(profile: &LinuxSeccomp) -> bool {
    profile.default_action() == LinuxSeccompAction::ScmpActNotify
        || profile.syscalls().iter().flatten().any(|call| call.action() == LinuxSeccompAction::ScmpActNotify)
}

/// The low 16 bits of a filter's result carry the value; errno ends at 4095.
fn check_errno(value: Option<u32>) -> Result<()> {
    match value {
        Some(value) if value > 4095 => {
            Err(Error::invalid("linux.seccomp", format!("errnoRet {value} is above 4095")))
        }
        _ => Ok(()),
    }
}

fn calls(profile: &LinuxSeccomp, abi: Abi, default: u32) -> Result<Vec<(u32, Outcome)>> {
    // (number, position in the profile, branches)
    let mut rules: Vec<(u32, Vec<Vec<Condition>>, u32)> = Vec::new();
    for call in profile.syscalls().iter().flatten() {
        check_errno(call.errno_ret())?;
        let action = call.action().as_u32(call.errno_ret());
        let alternatives = alternatives(call.args().as_deref().unwrap_or_default())?;
        for name in call.names() {
            if let Some(number) = abi.number(name) {
                rules.push((number, alternatives.clone(), action));
            }
        }
    }
    rules.sort_by_key(|(number, ..)| *number);
    let mut calls: Vec<(u32, Outcome)> = Vec::with_capacity(rules.len());
    for (number, alternatives, action) in rules {
        if calls.last().is_none_or(|(last, _)| *last != number) {
            calls.push((number, Outcome::plain(default)));
        }
        let Some((_, outcome)) = calls.last_mut() else { continue };
        if alternatives.is_empty() {
            // The first rule without conditions is what remains for a call.
            if outcome.fallback == default {
                outcome.fallback = action;
            }
        } else {
            outcome.branches.extend(alternatives.into_iter().map(|conditions| (conditions, action)));
        }
    }
    for (_, outcome) in &mut calls {
        let Outcome { branches, fallback } = outcome;
        if branches.iter().all(|(_, action)| action == fallback) {
            branches.clear();
        }
    }
    Ok(calls)
}

/// The conditions of one rule: all must hold, except that several on the same
/// argument are alternatives (as runc reads them).
fn alternatives(arguments: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>> {
    let mut conditions = Vec::with_capacity(arguments.len());
    for argument in arguments {
        conditions.push(condition(argument)?);
    }
    let repeated = conditions.iter().enumerate().any(|(position, one)| {
        conditions.iter().take(position).any(|other: &Condition| other.argument == one.argument)
    });
    Ok(match (conditions.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, true) => conditions.into_iter().map(|condition| vec![condition]).collect(),
        (false, false) => vec![conditions],
    })
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition> {
    let value = argument.value();
    let compare = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Compare::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Compare::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Compare::LessEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Compare::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Compare::GreaterEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Compare::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Compare::Masked { mask: value, value: argument.value_two().unwrap_or(0) }
        }
    };
    match u8::try_from(argument.index()) {
        Ok(index @ 0..=5) => Ok(Condition { argument: index, compare }),
        _ => Err(Error::invalid("linux.seccomp", format!("a call has no argument {}", argument.index()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_is_small() {
        let filter = Filter::docker(caps::Set::EMPTY);
        assert!(filter.len() < 450, "{}", filter.len());
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_program_in_the_source_is_the_default_one() {
        let names = crate::DEFAULT_CAPABILITIES.map(crate::plan::capability_name);
        let set = names.into_iter().fold(caps::Set::EMPTY, |set, name| set.with(name).unwrap());
        assert_eq!(set, precompiled::CAPABILITIES);
        let compiled = Filter::compile_docker(set).program;
        if precompiled::program().as_ref() != Some(&compiled) {
            let numbers = compiled.iter().map(|one| format!("{:#018x},", precompiled::packed(*one)));
            let lines: Vec<_> = numbers.collect::<Vec<_>>().chunks(5).map(|line| line.join(" ")).collect();
            panic!("the profile changed; PROGRAM in precompiled.rs has to be:\n    {}", lines.join("\n    "));
        }
    }

    #[test]
    fn profiles_compile() {
        let profile: LinuxSeccomp = serde_json::from_str(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_PPC64LE"],
                "syscalls":[{"names":["getcwd","nosuchcall"],"action":"SCMP_ACT_ERRNO","errnoRet":7},
                {"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]}]}"#,
        )
        .unwrap();
        let filter = Filter::compile(&profile).unwrap();
        assert!(filter.len() > 5 && !filter.flags.listener);
        let bad: LinuxSeccomp = serde_json::from_str(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_KILL",
                "args":[{"index":6,"value":40,"op":"SCMP_CMP_EQ"}]}]}"#,
        )
        .unwrap();
        assert!(Filter::compile(&bad).is_err());
    }
}
