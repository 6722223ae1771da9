//! `EXPOSE`.

use std::net::IpAddr;

use super::Planner;
use crate::dockerfile::instruction::Instruction;
use crate::dockerfile::lint::{Linter, Rule};
use crate::dockerfile::problem::{Diagnostic, Lines, Problem};
use crate::dockerfile::quote::quoted;

/// The most ports of one image: all of three protocols.
const MAX_PORTS: usize = 3 * 65536;

impl Planner<'_> {
    pub(super) fn expose(
        &mut self,
        index: usize,
        instruction: &Instruction,
        ports: &[String],
    ) -> Result<(), Diagnostic> {
        let lines = instruction.lines;
        let lexer = self.lexer();
        let mut all = Vec::new();
        for text in ports {
            let state = &self.states[index];
            let expanded = lexer
                .expand(text, &state.variables)
                .map_err(|error| Diagnostic::at(error, lines).with_word(text.as_str()))?;
            for word in expanded.words {
                let found = self::ports(&word, self.linter, lines).map_err(|reason| {
                    Diagnostic::at(Problem::Port { reason }, lines).with_word(text.as_str())
                })?;
                all.extend(found);
                if all.len() > MAX_PORTS {
                    return Err(Diagnostic::at(Problem::TooManyPorts { limit: MAX_PORTS }, lines));
                }
            }
        }
        self.history(index, format!("EXPOSE [{}]", all.join(" ")), false);
        self.states[index].config.config.exposed_ports.extend(all);
        Ok(())
    }
}

/// Ports of `[[address:]host port:]port[-port][/protocol]`, as `80/tcp`.
fn ports(text: &str, linter: &mut Linter, lines: Lines) -> Result<Vec<String>, String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();

    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(format!("invalid port: {}: no port specified", quoted(text)));
    }
    let lower = protocol.to_lowercase();
    let lower = match lower.as_str() {
        "" => "tcp",
        known @ ("tcp" | "udp" | "sctp") => known,
        _ => return Err(format!("invalid port: {}: invalid proto: {protocol}", quoted(text))),
    };
    if !protocol.is_empty() && protocol != lower {
        let detail = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        linter.warn(Rule::ExposeProtoCasing, lines, detail);
    }
    if !address.is_empty() || !host.is_empty() {
        let detail = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        );
        linter.warn(Rule::ExposeInvalidFormat, lines, detail);
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let (first, last) = span(range).ok_or_else(|| format!("invalid containerPort: {range}"))?;
    if !host.is_empty() {
        let (host_first, host_last) = span(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if last - first != host_last - host_first && first != last {
            return Err(format!("invalid ranges specified for container and host Ports: {range} and {host}"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{lower}")).collect())
}

/// First and last port.
fn span(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok();
    let Some((first, last)) = text.split_once('-') else {
        return number(text).map(|port| (port, port));
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        let mut linter = Linter::default();
        let mut read = |text| ports(text, &mut linter, Lines::default());
        assert_eq!(read("80").unwrap(), ["80/tcp"]);
        assert_eq!(read("8000-8002/UDP").unwrap(), ["8000/udp", "8001/udp", "8002/udp"]);
        assert_eq!(read("[::1]:1:2").unwrap(), ["2/tcp"]);
        assert_eq!(read("x").unwrap_err(), "invalid containerPort: x");
        assert_eq!(read("80/http").unwrap_err(), "invalid port: \"80/http\": invalid proto: http");
        assert_eq!(read("9-8").unwrap_err(), "invalid containerPort: 9-8");
        assert_eq!(read("65536").unwrap_err(), "invalid containerPort: 65536");
        let rules: Vec<_> = linter.warnings().iter().map(|warning| warning.rule).collect();
        assert_eq!(rules, [Rule::ExposeProtoCasing, Rule::ExposeInvalidFormat]);
    }
}
