//! `--gpus`: GPUs in Docker's grammar, as the names by which they are described (CDI), as Docker does where NVIDIA's own
//! runtime is missing.
//!
//! ```text
//!   all | -1          nvidia.com/gpu=all
//!   2                 nvidia.com/gpu=0 nvidia.com/gpu=1
//!   device=0,GPU-3f   nvidia.com/gpu=0 nvidia.com/gpu=GPU-3f     in quotes: "device=0,GPU-3f",capabilities=gpu
//! ```

use onggi_engine::run::Gpus;

/// More than any machine has; a larger count is a mistake.
const MAX_COUNT: i64 = 1024;

/// What is meant.
pub fn parse(text: &str) -> Result<Gpus, String> {
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
        (None, false) => Ok(Gpus { count: 0, devices }),
        (count, true) => Ok(Gpus { count: count.unwrap_or(1), devices }),
    }
}

/// -1 for all.
fn parse_count(text: &str) -> Result<i64, String> {
    match text {
        "all" => Ok(-1),
        _ => match text.parse() {
            Ok(count) if (-1..=MAX_COUNT).contains(&count) => Ok(count),
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
        let parsed = |text| parse(text).map(|gpus| gpus.names().join(" ").replace("nvidia.com/gpu=", ""));
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
