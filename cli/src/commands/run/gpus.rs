//! `--gpus`: GPUs in Docker's grammar, as the names by which they are described (CDI), as Docker does where NVIDIA's own
//! runtime is missing.
//!
//! ```text
//!   all | -1          nvidia.com/gpu=all
//!   2                 nvidia.com/gpu=0 nvidia.com/gpu=1
//!   device=0,GPU-3f   nvidia.com/gpu=0 nvidia.com/gpu=GPU-3f     in quotes: "device=0,GPU-3f",capabilities=gpu
//! ```

/// What NVIDIA's tool calls its devices.
const CLASS: &str = "nvidia.com/gpu";
/// More than any machine has; a larger count is a mistake.
const MAX_COUNT: u32 = 1024;

/// The devices that are meant.
pub fn parse(text: &str) -> Result<Vec<String>, String> {
    let (mut devices, mut count) = (Vec::new(), None);
    for field in fields(text)? {
        match field.split_once('=') {
            None => count = Some(parse_count(&field)?),
            Some(("count", value)) => count = Some(parse_count(value)?),
            Some(("device", value)) => devices.extend(value.split(',').map(str::to_owned)),
            Some(("driver", "" | "nvidia" | "cdi") | ("capabilities", "gpu")) => {}
            Some(("driver", other)) => return Err(format!("there is no driver {other:?} (known: nvidia)")),
            Some(("capabilities", other)) => {
                return Err(format!(
                    "capabilities={other} is not supported: what a GPU can do is what its description (CDI) gives"
                ));
            }
            Some((key, _)) => return Err(format!("unexpected key {key:?}")),
        }
    }
    if devices.iter().any(String::is_empty) {
        return Err("a device has no name".into());
    }
    match (count, devices.is_empty()) {
        (Some(_), false) => Err("cannot set both count and device".into()),
        (None, true) => Ok(vec![format!("{CLASS}=0")]),
        (None, false) => Ok(devices.iter().map(|name| format!("{CLASS}={name}")).collect()),
        (Some(None), true) => Ok(vec![format!("{CLASS}=all")]),
        (Some(Some(count)), true) => Ok((0..count).map(|number| format!("{CLASS}={number}")).collect()),
    }
}

/// `None` for all.
fn parse_count(text: &str) -> Result<Option<u32>, String> {
    match text {
        "all" | "-1" => Ok(None),
        _ => match text.parse() {
            Ok(count) if count <= MAX_COUNT => Ok(Some(count)),
            _ => Err(format!("{text:?} is no number of GPUs (expected all, a number or device=…)")),
        },
    }
}

/// A line of CSV.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    all.push(field);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn as_docker_reads_it() {
        let parsed = |text| parse(text).map(|names| names.join(" ").replace("nvidia.com/gpu=", ""));
        assert_eq!(parsed("all").as_deref(), Ok("all"));
        assert_eq!(parsed("-1").as_deref(), Ok("all"));
        assert_eq!(parsed("2").as_deref(), Ok("0 1"));
        assert_eq!(parsed("device=1").as_deref(), Ok("1"));
        assert_eq!(parsed("\"device=0,GPU-3f\",capabilities=gpu").as_deref(), Ok("0 GPU-3f"));
        assert_eq!(parsed("count=1,driver=nvidia").as_deref(), Ok("0"));
        for bad in
            ["some", "device=", "1,device=0", "driver=amd", "capabilities=video", "x=1", "\"all", "99999"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
