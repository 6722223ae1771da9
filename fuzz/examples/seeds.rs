//! Writes the seeds of a target into a folder, for libFuzzer to begin with: `seeds TARGET FOLDER`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let (name, folder) = (words.next().unwrap_or_default(), PathBuf::from(words.next().unwrap_or_default()));
    let found = onggi_fuzz::TARGETS.iter().find(|target| target.name == name);
    let target = found.ok_or_else(|| std::io::Error::other(format!("no target {name:?}")))?;
    std::fs::create_dir_all(&folder)?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
