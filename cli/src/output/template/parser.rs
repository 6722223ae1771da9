//! From tokens to a tree.
//!
//! ```text
//!   list     = { text | action | if | range | with }
//!   pipeline = [ $v [, $w] (:= | =) ] command { "|" command }
//!   command  = operand { blank operand }
//!   operand  = term { .field }
//!   term     = function | . | .field | $v | constant | ( pipeline )
//! ```
//!
//! `define`, `template` and `block` name templates; a format string is one template, so
//! they are refused by name.

use super::error::Error;
use super::functions::Function;
use super::lexer::{Kind, Token, tokens};
use super::value::Datum;

/// How deep blocks and parentheses may nest: far beyond what anybody writes, and far from the end of the stack.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    /// A pipeline whose value is printed (unless it sets a variable).
    Action(Pipeline),
    If(Branch),
    Range(Branch),
    With(Branch),
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) list: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// `=` and not `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) span: Span,
    /// At least one.
    pub(super) operands: Vec<Operand>,
}

/// A part of the source: `at` is where an error points, `start..end` what it shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) at: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) span: Span,
    pub(super) term: Term,
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Term {
    Function(Function),
    Dot,
    Nil,
    Variable(String),
    /// A constant, and whether `.field` may follow it (never).
    Constant(Datum<'static>),
    Pipeline(Box<Pipeline>),
}

/// Reads a template.
pub(super) fn parse(source: &str) -> Result<Vec<Node>, Error> {
    let mut parser = Parser {
        source,
        tokens: tokens(source)?,
        next: 0,
        variables: vec!["$".to_owned()],
        depth: 0,
        loops: 0,
    };
    let (list, end) = parser.list()?;
    match end {
        End::Eof => Ok(list),
        End::Else(_) => Err(parser.fail("unexpected {{else}}")),
        End::Block => Err(parser.fail("unexpected {{end}}")),
    }
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    depth: usize,
    loops: usize,
}

/// What ended a list of nodes.
enum End {
    Eof,
    Block,
    /// `{{else}}`, or `{{else if …}}`, `{{else with …}}` with the word and the parser behind it.
    Else(Option<&'static str>),
}

impl Parser<'_> {
    fn peek(&self) -> &Kind {
        self.tokens.get(self.next).map_or(&Kind::Eof, |token| &token.kind)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.next).map_or(self.source.len(), |token| token.at)
    }

    /// Where the token before the next one ended.
    fn ended(&self) -> usize {
        self.next.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |token| token.end)
    }

    fn take(&mut self) -> Kind {
        let kind = self.peek().clone();
        self.next += 1;
        kind
    }

    fn skip_space(&mut self) {
        while *self.peek() == Kind::Space {
            self.next += 1;
        }
    }

    fn fail(&self, message: impl Into<String>) -> Error {
        Error::parse(self.source, self.position(), message)
    }

    fn unexpected(&self, context: &str) -> Error {
        let token = self.tokens.get(self.next);
        let text = token.map_or("", |token| &self.source[token.at..token.end]);
        match self.peek() {
            Kind::Eof => self.fail("unexpected EOF"),
            Kind::Char(_) | Kind::Str(_) | Kind::Int(_) | Kind::Float(_) => {
                self.fail(format!("unexpected {text:?} in {context}"))
            }
            _ => self.fail(format!("unexpected <{text}> in {context}")),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn list(&mut self) -> Result<(Vec<Node>, End), Error> {
        let mut nodes = Vec::new();
        loop {
            match self.take() {
                Kind::Eof => return Ok((nodes, End::Eof)),
                Kind::Text(text) => nodes.push(Node::Text(text)),
                _ => {
                    self.skip_space();
                    match self.action()? {
                        Ok(node) => nodes.push(node),
                        Err(end) => return Ok((nodes, end)),
                    }
                }
            }
        }
    }

    fn action(&mut self) -> Result<Result<Node, End>, Error> {
        let word = match self.peek() {
            Kind::Word(word) => word.clone(),
            _ => String::new(),
        };
        let keyword = match word.as_str() {
            "if" => "if",
            "range" => "range",
            "with" => "with",
            "end" => {
                self.next += 1;
                self.close("end")?;
                return Ok(Err(End::Block));
            }
            "else" => {
                self.next += 1;
                self.skip_space();
                let chained = match self.peek() {
                    Kind::Word(word) if word == "if" => Some("if"),
                    Kind::Word(word) if word == "with" => Some("with"),
                    _ => None,
                };
                match chained {
                    Some(_) => self.next += 1,
                    None => self.close("else")?,
                }
                return Ok(Err(End::Else(chained)));
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return Err(self.fail(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                self.next += 1;
                self.close(&word)?;
                return Ok(Ok(if word == "break" { Node::Break } else { Node::Continue }));
            }
            "define" | "template" | "block" => {
                return Err(self.fail(format!("{{{{{word}}}}} is not supported in a format string")));
            }
            _ => {
                let pipeline = self.pipeline("command", false)?;
                self.close("command")?;
                return Ok(Ok(Node::Action(pipeline)));
            }
        };
        self.next += 1;
        self.deeper(|parser| parser.branch(keyword)).map(Ok)
    }

    /// `if`, `range` and `with`, from behind the word to behind `{{end}}`.
    fn branch(&mut self, keyword: &'static str) -> Result<Node, Error> {
        let scope = self.variables.len();
        let pipeline = self.pipeline(keyword, keyword == "range")?;
        self.close(keyword)?;
        self.loops += usize::from(keyword == "range");
        let (list, end) = self.list()?;
        self.loops -= usize::from(keyword == "range");
        let otherwise = match end {
            End::Eof => return Err(self.fail("unexpected EOF")),
            End::Block => Vec::new(),
            // `{{else if}}` shares its {{end}} with the `if` that it continues.
            End::Else(Some(chained)) if keyword != "range" => {
                vec![self.deeper(|parser| parser.branch(chained))?]
            }
            End::Else(Some(chained)) => {
                return Err(self.fail(format!("unexpected <{chained}> in else of range")));
            }
            End::Else(None) => match self.list()? {
                (otherwise, End::Block) => otherwise,
                (_, End::Eof) => return Err(self.fail("unexpected EOF")),
                (_, End::Else(_)) => return Err(self.fail("expected end; found {{else}}")),
            },
        };
        self.variables.truncate(scope);
        let branch = Branch { pipeline, list, otherwise };
        Ok(match keyword {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    fn close(&mut self, context: &str) -> Result<(), Error> {
        self.skip_space();
        match self.peek() {
            Kind::RightDelim => {
                self.next += 1;
                Ok(())
            }
            _ => Err(self.unexpected(context)),
        }
    }

    fn pipeline(&mut self, context: &str, is_range: bool) -> Result<Pipeline, Error> {
        self.skip_space();
        let (variables, assigns) = self.declaration(is_range)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Kind::RightDelim | Kind::RightParen | Kind::Eof if commands.is_empty() => {
                    return Err(self.fail(format!("missing value for {context}")));
                }
                Kind::RightDelim | Kind::RightParen => break,
                _ => {}
            }
            let command = self.command(context)?;
            let stage = commands.len() + 1;
            if stage > 1 && command.operands[0].is_constant() {
                return Err(self.fail(format!("non executable command in pipeline stage {stage}")));
            }
            commands.push(command);
            self.skip_space();
            if *self.peek() != Kind::Pipe {
                break;
            }
            self.next += 1;
            self.skip_space();
            if matches!(self.peek(), Kind::RightDelim | Kind::RightParen | Kind::Pipe) {
                return Err(self.fail("missing value for command"));
            }
        }
        // A variable is known from behind the pipeline that sets it.
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { variables, assigns, commands })
    }

    /// `$v :=`, `$v =` and, for `range`, `$i, $v :=`; nothing of it if the variable is an operand.
    fn declaration(&mut self, is_range: bool) -> Result<(Vec<String>, bool), Error> {
        let start = self.next;
        let mut names = Vec::new();
        while let Kind::Variable(name) = self.peek().clone() {
            self.next += 1;
            self.skip_space();
            match self.peek() {
                Kind::Declare | Kind::Assign => {
                    let assigns = *self.peek() == Kind::Assign;
                    if assigns && !self.variables.contains(&name) {
                        return Err(self.fail(format!("undefined variable {name:?}")));
                    }
                    names.push(name);
                    self.next += 1;
                    return Ok((names, assigns));
                }
                Kind::Comma if is_range && names.is_empty() => {
                    names.push(name);
                    self.next += 1;
                    self.skip_space();
                }
                Kind::Comma if is_range => return Err(self.fail("too many declarations in range")),
                Kind::Comma => return Err(self.fail("too many declarations in command")),
                _ => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self, context: &str) -> Result<Command, Error> {
        let start = self.position();
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Kind::RightDelim | Kind::RightParen | Kind::Pipe => break,
                _ => operands.push(self.operand(context)?),
            }
            match self.peek() {
                Kind::Space | Kind::RightDelim | Kind::RightParen | Kind::Pipe => {}
                _ => return Err(self.unexpected("operand")),
            }
        }
        if operands.is_empty() {
            return Err(self.fail("empty command"));
        }
        let end = operands.last().map_or(start, |operand| operand.span.end);
        Ok(Command { span: Span { at: start, start, end }, operands })
    }

    fn operand(&mut self, context: &str) -> Result<Operand, Error> {
        let start = self.position();
        let mut at = start;
        let mut fields = Vec::new();
        let term = match self.peek().clone() {
            Kind::Word(word) => match word.as_str() {
                "true" | "false" => Term::Constant(Datum::Bool(word == "true")),
                "nil" => Term::Nil,
                _ => match Function::named(&word) {
                    Some(function) => Term::Function(function),
                    None => return Err(self.fail(format!("function {word:?} not defined"))),
                },
            },
            Kind::Dot => Term::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Term::Dot
            }
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.fail(format!("undefined variable {name:?}")));
                }
                Term::Variable(name)
            }
            Kind::Int(value) => Term::Constant(Datum::Int(value)),
            Kind::Float(value) => Term::Constant(Datum::Float(value)),
            Kind::Str(text) => Term::Constant(Datum::Text(text.into())),
            Kind::LeftParen => {
                self.next += 1;
                let inner = self.deeper(|parser| parser.pipeline("parenthesized pipeline", false))?;
                if *self.peek() != Kind::RightParen {
                    return Err(self.unexpected("parenthesized pipeline"));
                }
                Term::Pipeline(Box::new(inner))
            }
            _ => return Err(self.unexpected(context)),
        };
        self.next += 1;
        let bare =
            matches!(term, Term::Constant(_) | Term::Nil) || (matches!(term, Term::Dot) && fields.is_empty());
        let mut first = true;
        while let Kind::Field(name) = self.peek().clone() {
            if bare {
                let shown = &self.source[start..self.ended()];
                return Err(self.fail(format!("unexpected . after term {shown:?}")));
            }
            if first {
                at = self.position();
                first = false;
            }
            fields.push(name);
            self.next += 1;
        }
        Ok(Operand { span: Span { at, start, end: self.ended() }, term, fields })
    }
}

impl Operand {
    fn is_constant(&self) -> bool {
        let bare_dot = matches!(self.term, Term::Dot) && self.fields.is_empty();
        bare_dot || matches!(self.term, Term::Constant(_) | Term::Nil)
    }
}
