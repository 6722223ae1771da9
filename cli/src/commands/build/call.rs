//! `--call`: what a build file says of itself, and what is to be said of it.

use onggi_engine::Engine;
use onggi_engine::build::BuildRequest;
use onggi_engine::build::builder::dockerfile::report::{Call, Format};

use super::excerpt;
use super::values::CallAs;
use crate::failure::Failure;
use crate::output::human;
use crate::session::Session;

/// Answers a question about the build file.
#[expect(clippy::print_stderr, reason = "the lines belong to the sentence that follows")]
pub fn run(session: &Session, engine: &Engine, request: &BuildRequest, call: &CallAs) -> Result<(), Failure> {
    let asked = match call.method.as_str() {
        "targets" => Call::Targets,
        "outline" => Call::Outline,
        _ => Call::Check,
    };
    let format = if call.json { Format::Json } else { Format::Text };
    let mut answer = None;
    engine.call(request, &mut |called, images| answer = Some(called.answer(asked, format, images)))?;
    let answer = match answer {
        None => return Ok(()),
        Some(Ok(answer)) => answer,
        Some(Err(error)) => {
            if let Some(text) = excerpt::of(&error) {
                eprintln!("{text}");
            }
            return Err(Failure::Engine(error));
        }
    };
    let text = if call.json { answer.text } else { human::visible_lines(&answer.text) };
    session.print(&text)?;
    if answer.failed && !call.ignore_status { Err(Failure::Silent(1)) } else { Ok(()) }
}
