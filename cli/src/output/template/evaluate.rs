//! Walks a template's tree over a value and writes the text.

use std::borrow::Cow;

use super::error::Error;
use super::functions::{Failure, Function};
use super::parser::{Branch, Command, Node, Operand, Pipeline, Span, Term};
use super::value::{Datum, Shape};

/// Applies a tree to a value. `header` makes the functions that shape a value hand it through,
/// which is how the first line of a table gets its words.
pub(super) fn evaluate(source: &str, tree: &[Node], data: &Datum<'_>, header: bool) -> Result<String, Error> {
    let mut walk = Walk { source, header, variables: vec![("$", data.clone())], out: String::new() };
    walk.list(tree, data)?;
    Ok(walk.out)
}

/// The longest `range` over a number: lists that come from onggi are far shorter, and a typing error must not run for hours.
const MAX_COUNT: i128 = 1_000_000;

struct Walk<'t, 'a> {
    source: &'t str,
    header: bool,
    variables: Vec<(&'t str, Datum<'a>)>,
    out: String,
}

/// Whether a list ran to its end, or a loop is to be left or continued.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'t, 'a> Walk<'t, 'a> {
    fn fail(&self, span: Span, message: impl Into<String>) -> Error {
        Error::evaluate(self.source, span.at, &self.source[span.start..span.end], message)
    }

    fn list(&mut self, nodes: &'t [Node], dot: &Datum<'a>) -> Result<Flow, Error> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&value.to_string());
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
                Node::If(branch) | Node::With(branch) => {
                    let scope = self.variables.len();
                    let value = self.pipeline(&branch.pipeline, dot)?;
                    let inner = if matches!(node, Node::With(_)) { &value } else { dot };
                    let flow = if value.is_true() {
                        self.list(&branch.list, inner)?
                    } else {
                        self.list(&branch.otherwise, dot)?
                    };
                    self.variables.truncate(scope);
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::Range(branch) => {
                    let scope = self.variables.len();
                    let flow = self.range(branch, dot)?;
                    self.variables.truncate(scope);
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
            }
        }
        Ok(Flow::On)
    }

    fn range(&mut self, branch: &'t Branch, dot: &Datum<'a>) -> Result<Flow, Error> {
        let value = self.commands(&branch.pipeline, dot)?;
        let scope = self.variables.len();
        let mut ran = false;
        let mut step = |walk: &mut Self, key: Datum<'a>, item: &Datum<'a>| -> Result<bool, Error> {
            ran = true;
            let names = &branch.pipeline.variables;
            let assigns = branch.pipeline.assigns;
            match names.as_slice() {
                [] => {}
                [one] => walk.set(one, assigns, item.clone()),
                [one, two, ..] => {
                    walk.set(one, assigns, key);
                    walk.set(two, assigns, item.clone());
                }
            }
            let flow = walk.list(&branch.list, item)?;
            walk.variables.truncate(scope);
            Ok(flow != Flow::Break)
        };
        match &value {
            Datum::Int(count) if *count > MAX_COUNT => {
                let first = &branch.pipeline.commands[0];
                return Err(self.fail(first.span, format!("range over {count} is longer than {MAX_COUNT}")));
            }
            Datum::Int(count) => {
                let mut next = 0;
                while next < *count && step(self, Datum::Int(next), &Datum::Int(next))? {
                    next += 1;
                }
            }
            Datum::Object(_, Shape::Map) => {
                for (key, item) in value.fields().unwrap_or_default() {
                    if !step(self, Datum::Text(Cow::Borrowed(key)), &item)? {
                        break;
                    }
                }
            }
            Datum::Missing | Datum::Nil(_) => {}
            _ => {
                let Some(items) = value.items() else {
                    let first = &branch.pipeline.commands[0];
                    return Err(self.fail(first.span, format!("range can't iterate over {value}")));
                };
                for (key, item) in items.iter().enumerate() {
                    if !step(self, Datum::Int(key as i128), item)? {
                        break;
                    }
                }
            }
        }
        if ran { Ok(Flow::On) } else { self.list(&branch.otherwise, dot) }
    }

    fn set(&mut self, name: &'t str, assigns: bool, value: Datum<'a>) {
        if assigns {
            if let Some(slot) = self.variables.iter_mut().rev().find(|slot| slot.0 == name) {
                slot.1 = value;
            }
        } else {
            self.variables.push((name, value));
        }
    }

    fn pipeline(&mut self, pipeline: &'t Pipeline, dot: &Datum<'a>) -> Result<Datum<'a>, Error> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, pipeline.assigns, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &'t Pipeline, dot: &Datum<'a>) -> Result<Datum<'a>, Error> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Datum::Missing))
    }

    /// One stage of a pipeline; `piped` is the value of the stage before, its last argument.
    fn command(
        &mut self,
        command: &'t Command,
        dot: &Datum<'a>,
        piped: Option<Datum<'a>>,
    ) -> Result<Datum<'a>, Error> {
        let (first, arguments) = (&command.operands[0], &command.operands[1..]);
        if let (Term::Function(function), []) = (&first.term, first.fields.as_slice()) {
            return self.call(*function, command, arguments, dot, piped);
        }
        if !arguments.is_empty() || piped.is_some() {
            let message = if let Some(name) = first.fields.last() {
                format!("{name} has arguments but cannot be invoked as function")
            } else {
                let shown = &self.source[first.span.start..first.span.end];
                format!("can't give argument to non-function {shown}")
            };
            return Err(self.fail(first.span, message));
        }
        if matches!(first.term, Term::Nil) {
            return Err(self.fail(first.span, "nil is not a command"));
        }
        self.operand(first, dot)
    }

    fn call(
        &mut self,
        function: Function,
        command: &'t Command,
        operands: &'t [Operand],
        dot: &Datum<'a>,
        piped: Option<Datum<'a>>,
    ) -> Result<Datum<'a>, Error> {
        let got = operands.len() + usize::from(piped.is_some());
        let name = command.operands[0].span;
        if let Some(message) = function.arity_error(got) {
            return Err(self.fail(name, message));
        }
        let mut args = Vec::with_capacity(got);
        for operand in operands {
            let value = self.operand(operand, dot)?;
            let decided = match function {
                Function::And => !value.is_true(),
                Function::Or => value.is_true(),
                _ => false,
            };
            args.push(value);
            if decided {
                return function.call(&args).map_err(|_| self.fail(name, "cannot be called"));
            }
        }
        args.extend(piped);
        if self.header && function.shapes_a_column() {
            return Ok(args.swap_remove(0));
        }
        function.call(&args).map_err(|failure| match failure {
            Failure::Argument(position, message) => {
                let operand = operands.get(position);
                let constant = operand.is_some_and(|operand| matches!(operand.term, Term::Constant(_)));
                let span = operand.map_or(command.span, |operand| operand.span);
                // Go knows a constant's type at once, and words that case differently.
                match message.split_once("expected ").filter(|_| constant) {
                    Some((_, rest)) => {
                        let want = rest.split(';').next().unwrap_or(rest);
                        let shown = &self.source[span.start..span.end];
                        self.fail(span, format!("expected {want}; found {shown}"))
                    }
                    None => self.fail(span, message),
                }
            }
            Failure::Call(message) => {
                self.fail(command.span, format!("error calling {}: {message}", function.name()))
            }
        })
    }

    fn operand(&mut self, operand: &'t Operand, dot: &Datum<'a>) -> Result<Datum<'a>, Error> {
        let value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil => Datum::Nil(Shape::Struct),
            Term::Constant(value) => value.clone(),
            Term::Variable(name) => {
                let slot = self.variables.iter().rev().find(|slot| slot.0 == name);
                slot.map_or(Datum::Missing, |slot| slot.1.clone())
            }
            Term::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
            Term::Function(function) => {
                if let Some(message) = function.arity_error(0) {
                    return Err(self.fail(operand.span, message));
                }
                function.call(&[]).map_err(|_| self.fail(operand.span, "cannot be called"))?
            }
        };
        operand.fields.iter().try_fold(value, |value, name| self.field(operand, value, name))
    }

    fn field(&self, operand: &Operand, value: Datum<'a>, name: &str) -> Result<Datum<'a>, Error> {
        let wrong = |type_name: &str| {
            self.fail(operand.span, format!("can't evaluate field {name} in type {type_name}"))
        };
        match value {
            Datum::Object(map, Shape::Map) => {
                Ok(map.get(name).map_or(Datum::Missing, |value| Datum::from_json(value, Shape::Struct)))
            }
            Datum::Object(map, _) => match map.get(name) {
                Some(value) => Ok(Datum::from_json(value, Shape::of_field(name))),
                None => Err(wrong("object")),
            },
            Datum::Missing | Datum::Nil(Shape::Map) => Ok(Datum::Missing),
            Datum::Nil(_) => Err(self.fail(operand.span, format!("nil pointer evaluating object.{name}"))),
            other => Err(wrong(other.type_name())),
        }
    }
}
