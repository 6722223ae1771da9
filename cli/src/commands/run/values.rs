//! Docker's grammar of values: sizes, CPUs, limits of processes, rates of devices, labels.

use std::path::PathBuf;
use std::time::Duration;

use onggi_engine::network::HostAddress;
use onggi_engine::run::{DeviceRate, Restart, Ulimit};

/// A size in bytes: `512`, `64k`, `1.5g`, `10MiB`; units are powers of 1024.
pub fn size(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid size: '{text}'");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.starts_with('.') || number.ends_with('.') || number.matches('.').count() > 1 {
        return Err(bad());
    }
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let bare = unit.strip_suffix('b').unwrap_or(&unit);
    let bare = bare.strip_suffix('i').filter(|letter| !letter.is_empty()).unwrap_or(bare);
    let shift = match bare {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).ok_or_else(bad);
    }
    let value: f64 = number.parse().map_err(|_| bad())?;
    #[expect(clippy::cast_precision_loss, reason = "a size with a fraction is not exact anyway")]
    let bytes = value * (1_u64 << shift) as f64;
    // i64::MAX as a float is one more than it.
    if !(0.0..9.2e18).contains(&bytes) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    Ok(bytes as i64)
}

/// A size that isn't negative.
pub fn positive_size(text: &str) -> Result<u64, String> {
    u64::try_from(size(text)?).map_err(|_| format!("invalid size: '{text}'"))
}

/// A size, or -1 for no limit.
pub fn swap(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

/// A number of CPUs, exact to a thousand millionth.
pub fn cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(bad());
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err("value is too precise".into());
    }
    let number = |part: &str| if part.is_empty() { Ok(0) } else { part.parse::<i64>().map_err(|_| bad()) };
    let fraction = number(&format!("{fraction:0<9}")[..9])?;
    number(whole)?.checked_mul(1_000_000_000).and_then(|nano| nano.checked_add(fraction)).ok_or_else(bad)
}

/// `TYPE=SOFT[:HARD]`; -1 is no limit.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("invalid ulimit argument: {text}");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "-1" => Ok(u64::MAX),
        text => text.parse().map_err(|_| bad()),
    };
    Ok(Ulimit { name: name.into(), soft: number(soft)?, hard: number(hard)? })
}

/// `PATH:RATE` in bytes a second.
pub fn bytes_rate(text: &str) -> Result<DeviceRate, String> {
    rate(
        text,
        |value| positive_size(value).ok(),
        "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb",
    )
}

/// `PATH:RATE` in operations a second.
pub fn operations_rate(text: &str) -> Result<DeviceRate, String> {
    rate(text, |value| value.parse().ok(), "<device-path>:<number>. Number must be a positive integer")
}

/// `PATH:WEIGHT`.
pub fn weight(text: &str) -> Result<DeviceRate, String> {
    rate(text, |value| value.parse().ok(), "<device-path>:<weight>")
}

fn rate(text: &str, read: impl Fn(&str) -> Option<u64>, form: &str) -> Result<DeviceRate, String> {
    let (path, value) = text
        .split_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    let rate = read(value)
        .ok_or_else(|| format!("invalid rate for device: {text}. The correct format is {form}"))?;
    Ok(DeviceRate { path: PathBuf::from(path), rate })
}

/// `KEY=VALUE`, or `KEY` alone for an empty value.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        Err(format!("invalid label: {text:?}"))
    } else {
        Ok((key.into(), value.into()))
    }
}

/// `KEY=VALUE` of a kernel setting.
pub fn sysctl(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("sysctl '{text}' is not allowed: expected NAME=VALUE")),
    }
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`.
pub fn host(text: &str) -> Result<(String, HostAddress), String> {
    let (name, address) = text
        .split_once(['=', ':'])
        .filter(|(name, _)| !name.is_empty() && !name.contains(char::is_whitespace))
        .ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    if address == "host-gateway" {
        return Ok((name.into(), HostAddress::HostGateway));
    }
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address = address.parse().map_err(|_| format!("invalid IP address in add-host: {address:?}"))?;
    Ok((name.into(), HostAddress::Address(address)))
}

/// A word of `resolv.conf`.
pub fn resolver_word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{text:?} is not a valid domain or option"));
    }
    Ok(text.into())
}

/// A signal by name, with or without SIG, or by number.
pub fn signal(text: &str) -> Result<String, String> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_number = text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    let real_time =
        bare.strip_prefix("RTM").is_some_and(|rest| rest.starts_with("IN") || rest.starts_with("AX"));
    if by_number || NAMES.contains(&bare) || real_time {
        Ok(text.into())
    } else {
        Err(format!("invalid signal: {text}"))
    }
}

/// `no`, `on-failure[:MAX]`, `always` or `unless-stopped`.
pub fn restart(text: &str) -> Result<Restart, String> {
    let (policy, count) = match text.split_once(':') {
        Some((policy, count)) => (policy, Some(count)),
        None => (text, None),
    };
    let count = count
        .map(|count| count.parse::<u32>().map_err(|_| "maximum retry count must be an integer".to_owned()))
        .transpose()?;
    match (policy, count) {
        ("on-failure", count) => Ok(Restart::OnFailure(count.filter(|count| *count > 0))),
        ("no" | "always" | "unless-stopped", Some(_)) => {
            Err("maximum retry count can only be used with 'on-failure'".into())
        }
        ("no" | "", None) => Ok(Restart::No),
        ("always", None) => Ok(Restart::Always),
        ("unless-stopped", None) => Ok(Restart::UnlessStopped),
        _ => Err(format!(
            "invalid restart policy: unknown policy '{policy}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

/// `KEY=VALUE` of a log option.
pub fn log_option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("invalid logging opts format: {text:?} (expected KEY=VALUE)")),
    }
}

/// A duration as Go writes it: `1m30s`, `1.5h`, `300ms`; a bare 0 is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration: {text:?} (expected as in 30s, 1m30s or 500ms)");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        let value: f64 = number.parse().map_err(|_| bad())?;
        let part = Duration::try_from_secs_f64(value * seconds).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("32b", 32),
            ("64k", 64 << 10),
            ("64KB", 64 << 10),
            ("6m", 6 << 20),
            ("10MiB", 10 << 20),
            ("1.5g", 3 << 29),
            ("1 G", 1 << 30),
            ("2t", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "1.2.3k",
            "1.",
            ".5g",
            "1  k",
            "64mm",
            "9999999999999999999",
            "9999999p",
            "1e3",
            "ki",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!((swap("-1"), swap("1k")), (Ok(-1), Ok(1024)));
    }

    #[test]
    fn cpus_are_exact() {
        for (text, nano) in
            [("0.5", 500_000_000), ("2", 2_000_000_000), ("1.000000001", 1_000_000_001), (".25", 250_000_000)]
        {
            assert_eq!(cpus(text), Ok(nano), "{text}");
        }
        for bad in ["", ".", "-1", "1e3", "x", "0.0000000001", "99999999999999999999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_rest_is_as_dockers() {
        assert_eq!(ulimit("nofile=10:20").map(|u| (u.soft, u.hard)), Ok((10, 20)));
        assert_eq!(ulimit("core=-1").map(|u| u.hard), Ok(u64::MAX));
        assert!(ulimit("nofile").is_err() && ulimit("nofile=x").is_err() && ulimit("nofile=1:2:3").is_err());
        assert_eq!(bytes_rate("/dev/sda:1mb").map(|r| r.rate), Ok(1 << 20));
        assert!(bytes_rate("/dev/sda").is_err() && bytes_rate("sda:1").is_err());
        assert!(operations_rate("/dev/sda:1mb").is_err() && operations_rate("/dev/sda:-1").is_err());
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("=x").is_err() && sysctl("x").is_err());
        assert_eq!(host("h:::1").map(|h| h.1.to_string()), Ok("::1".into()));
        assert_eq!(host("h=[::1]").map(|h| h.1.to_string()), Ok("::1".into()));
        assert!(host("h:x").is_err() && host(":1.1.1.1").is_err() && host("a b:1.1.1.1").is_err());
        assert_eq!(restart("on-failure:3"), Ok(Restart::OnFailure(Some(3))));
        assert_eq!(restart("on-failure"), Ok(Restart::OnFailure(None)));
        assert!(restart("always:3").is_err() && restart("x").is_err() && restart("on-failure:x").is_err());
        for (text, milliseconds) in
            [("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000), ("0", 0), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1x", "1.2.3s", "1e99h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(log_option("a=b=c").is_ok() && log_option("a").is_err() && log_option("=a").is_err());
        assert!(resolver_word("a\nnameserver 1.1.1.1").is_err());
        assert!(
            signal("SIGTERM").is_ok()
                && signal("kill").is_ok()
                && signal("9").is_ok()
                && signal("NO").is_err()
        );
    }
}
