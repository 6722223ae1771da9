//! `-e` and `--env-file`: environment variables for a container, from words, files and the caller.

use std::path::PathBuf;

use crate::failure::Failure;

/// The largest environment file: the kernel takes no larger environment either.
const MAX_FILE: u64 = 2 << 20;

/// All variables as `NAME=VALUE`: those of the files first, then the words, later ones winning.
///
/// A `NAME` without a value takes the caller's, and is left out where the caller has none.
pub fn collect(files: &[PathBuf], words: Vec<String>) -> Result<Vec<String>, Failure> {
    let mut variables = Vec::new();
    for file in files {
        let shown = file.display();
        let size = std::fs::metadata(file).map_err(Failure::local(format!("read {shown}")))?.len();
        if size > MAX_FILE {
            return Err(Failure::Input(format!("{shown} of {size} bytes is no environment file")));
        }
        let text = std::fs::read_to_string(file).map_err(Failure::local(format!("read {shown}")))?;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(Failure::Input(format!(
                    "{shown}, line {}: {name:?} is no name of a variable",
                    number + 1
                )));
            }
            variables.extend(resolve(line.to_owned()));
        }
    }
    for word in words {
        if word.is_empty() || word.starts_with('=') {
            return Err(Failure::Input(format!("invalid environment variable: {word:?}")));
        }
        variables.extend(resolve(word));
    }
    Ok(variables)
}

fn resolve(word: String) -> Option<String> {
    if word.contains('=') {
        return Some(word);
    }
    let value = std::env::var(&word).ok()?;
    Some(format!("{word}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_comments_do_not_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "\u{feff}# note\n\nA=1\n  B=x y \nONGGI_TEST_NO_SUCH_VARIABLE\n").unwrap();
        let all = collect(&[file.path().to_owned()], vec!["A=2".into()]).unwrap();
        assert_eq!(all, ["A=1", "B=x y ", "A=2"]);
    }

    #[test]
    fn what_is_no_variable_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "A B=1\n").unwrap();
        assert!(collect(&[file.path().to_owned()], vec![]).is_err());
        assert!(collect(&[], vec!["=x".into()]).is_err());
        assert!(collect(&["/no/such/file".into()], vec![]).is_err());
    }
}
