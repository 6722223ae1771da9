//! `onggi push`: uploads an image to a registry.

use std::sync::Arc;

use onggi_engine::PushRequest;
use onggi_engine::image::layer::Compression;
use onggi_engine::oci::{Platform, Reference};
use onggi_engine::progress::Progress;

use crate::failure::Failure;
use crate::output::progress::{Sink, Transfers};
use crate::session::Session;

/// Upload an image to a registry
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push only this platform of an image that has several, as os[/arch[/variant]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// How layers are compressed that are not yet: gzip (the default) or zstd
    #[arg(long, value_name = "FORMAT", value_parser = compression)]
    compression_format: Option<Compression>,
    /// Level of the compression: 1 to 9 for gzip (6), 1 to 20 for zstd (3)
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i32>,
    /// Compress layers anew that are compressed in another format; the default if --compression-format is given
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    force_compression: Option<bool>,
    /// Print nothing but the digest
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image; without a registry, Docker Hub's
    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
}

impl Options {
    pub fn run(self, session: &Session) -> Result<(), Failure> {
        if self.all_tags && (self.name.tag().is_some() || self.name.digest().is_some()) {
            return Err(Failure::Input("tag can't be used with --all-tags/-a".into()));
        }
        if self.name.digest().is_some() {
            return Err(Failure::Input(
                "cannot push a digest reference: give the image a tag with `onggi tag`".into(),
            ));
        }
        self.check_level()?;
        let engine = session.engine()?;
        let transfers = Arc::new(Transfers::new(Sink::Stdout, self.quiet));
        let progress: Arc<dyn Progress> = transfers.clone();
        let names = match self.all_tags {
            true => engine.local_tags(&self.name)?,
            false => vec![self.name.clone().with_default_tag()],
        };
        let mut text = String::new();
        if !self.quiet {
            session.print(&format!("The push refers to repository [{}]\n", self.name.name()))?;
        }
        let request = PushRequest {
            platform: self.platform,
            compression: self.compression_format,
            level: self.compression_level,
            recompress: self.force_compression.unwrap_or(self.compression_format.is_some()),
        };
        for name in &names {
            let pushed = engine.push(name, &request, &progress)?;
            text += &if self.quiet {
                format!("{}\n", pushed.digest)
            } else {
                let tag = name.tag().unwrap_or_default();
                format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size)
            };
            if let Some(note) = pushed.note {
                session.warn(&note);
            }
        }
        transfers.finish("Pushed");
        session.print(&text)
    }
}

impl Options {
    fn check_level(&self) -> Result<(), Failure> {
        let Some(level) = self.compression_level else { return Ok(()) };
        let (name, highest) = match self.compression_format {
            Some(Compression::Zstd) => ("zstd", 20),
            _ => ("gzip", 9),
        };
        if (1..=highest).contains(&level) {
            return Ok(());
        }
        let text = format!("--compression-level {level}: {name} has the levels 1 to {highest}");
        Err(Failure::Input(text))
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "zstd:chunked" => Err("zstd:chunked is not supported; zstd is".into()),
        _ => Err("there are gzip and zstd".into()),
    }
}
