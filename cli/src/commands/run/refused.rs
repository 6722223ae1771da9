//! Flags of Docker's `run` that onggi knows and can't honour: each is refused by its name, with the reason.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches};

/// A flag: its long name, its letter, whether it takes a value, and why not.
type Flag = (&'static str, Option<char>, bool, &'static str);

const FLAGS: &[Flag] = &[
    ("disable-content-trust", None, false, "there is no Notary support"),
    ("kernel-memory", None, true, "the kernel no longer has this limit (--memory counts kernel memory too)"),
    ("storage-opt", None, true, "containers share the filesystem of the store"),
    ("use-api-socket", None, false, "there is no daemon"),
];

/// Flags that have one value which changes nothing, and are refused with any other.
const ONLY: &[(&str, &[&str], &str)] = &[
    ("runtime", &["", "onggi"], "onggi runs containers itself"),
    ("isolation", &["", "default"], "Linux has one kind of isolation"),
    ("volume-driver", &["", "local"], "there is one driver: local"),
];

/// The flags, for clap.
#[derive(Debug)]
pub struct Options;

impl clap::Args for Options {
    fn augment_args(command: Command) -> Command {
        let command = FLAGS.iter().fold(command, |command, (name, letter, takes_value, why)| {
            let help = format!("Refused: {why}");
            let arg = Arg::new(*name).long(*name).help(help).help_heading("Not supported");
            let arg = letter.map_or_else(|| arg.clone(), |letter| arg.clone().short(letter));
            command.arg(if *takes_value {
                arg.action(ArgAction::Append).allow_hyphen_values(true)
            } else {
                arg.action(ArgAction::SetTrue)
            })
        });
        ONLY.iter().fold(command, |command, (name, values, _)| {
            let known =
                values.iter().filter(|value| !value.is_empty()).copied().collect::<Vec<_>>().join(", ");
            command.arg(Arg::new(*name).long(*name).value_name("VALUE").help(format!("Only: {known}")))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let refuse = |name: &str, why: &str| {
            Err(Error::raw(ErrorKind::InvalidValue, format!("--{name} is not supported: {why}\n")))
        };
        for (name, _, takes_value, why) in FLAGS {
            let given = if *takes_value { matches.contains_id(name) } else { matches.get_flag(name) };
            if given {
                return refuse(name, why);
            }
        }
        for (name, values, why) in ONLY {
            if let Some(value) = matches.get_one::<String>(name)
                && !values.contains(&value.as_str())
            {
                return refuse(&format!("{name}={value}"), why);
            }
        }
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
