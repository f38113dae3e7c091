//! From a template's text to its tree: Go's `text/template`, with trimming, comments, blocks, pipelines and variables.

/// Where something stands, for errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    pub line: usize,
    pub column: usize,
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub enum Node {
    Text(String),
    /// A pipeline whose value is shown, unless it declares variables.
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Define(String, Vec<Node>),
    Template(String, Option<Pipeline>),
    Break,
    Continue,
}

/// `$k, $v := a | b | c`.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub variables: Vec<String>,
    /// `=`, not `:=`.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

/// An operand and its arguments.
#[derive(Clone, Debug)]
pub struct Command {
    pub words: Vec<Operand>,
    pub at: At,
    /// As it was written.
    pub source: String,
}

/// A term, and the fields that are taken of it.
#[derive(Clone, Debug)]
pub struct Operand {
    pub term: Term,
    /// `.a.b`, each with where it stands.
    pub fields: Vec<String>,
    pub at: At,
    pub source: String,
}

/// The beginning of an operand.
#[derive(Clone, Debug)]
pub enum Term {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Variable(String),
    Function(String),
    Parenthesis(Pipeline),
}

/// Parses a template.
///
/// # Errors
/// In Go's words, without the name of the template.
pub fn parse(text: &str) -> Result<Vec<Node>, String> {
    let tokens = lex(text)?;
    let mut parser = Parser { tokens, next: 0, variables: vec!["$".into()], loops: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some((word, at)) => Err(format!(":{}: unexpected {{{{{word}}}}}", at.line)),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(String),
    Left,
    Right,
    /// `.`, or `.Name`.
    Field(String),
    /// `$x`
    Variable(String),
    Word(String),
    Text1(String),
    Char(i64),
    Number(String),
    Sign(&'static str),
    Space,
}

struct Placed {
    token: Token,
    at: At,
    /// Byte offsets in the text.
    from: usize,
    to: usize,
}

struct Lexer<'a> {
    text: &'a str,
    offset: usize,
    tokens: Vec<Placed>,
}

fn lex(text: &str) -> Result<Vec<(Token, At, String)>, String> {
    let mut lexer = Lexer { text, offset: 0, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens.into_iter().map(|p| (p.token, p.at, text[p.from..p.to].to_owned())).collect())
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.offset..]
    }

    fn at(&self, offset: usize) -> At {
        let before = &self.text[..offset];
        At { line: before.matches('\n').count() + 1, column: offset - before.rfind('\n').map_or(0, |n| n + 1) }
    }

    fn push(&mut self, token: Token, length: usize) {
        let from = self.offset;
        self.tokens.push(Placed { token, at: self.at(from), from, to: from + length });
        self.offset += length;
    }

    fn error<T>(&self, what: &str) -> Result<T, String> {
        Err(format!(":{}: {what}", self.at(self.offset).line))
    }

    fn run(&mut self) -> Result<(), String> {
        let mut trim = false;
        loop {
            let rest = self.rest();
            let end = rest.find("{{").unwrap_or(rest.len());
            let trims_before = rest[end..].starts_with("{{-") && rest[end + 3..].starts_with(char::is_whitespace);
            let mut text = &rest[..end];
            if trim {
                text = text.trim_start();
            }
            if trims_before {
                text = text.trim_end();
            }
            let text = text.to_owned();
            if text.is_empty() {
                self.offset += end;
            } else {
                self.push(Token::Text(text), end);
            }
            if self.rest().is_empty() {
                return Ok(());
            }
            self.push(Token::Left, if trims_before { 3 } else { 2 });
            trim = self.action()?;
        }
    }

    /// Up to the closing braces; whether they trim what follows.
    fn action(&mut self) -> Result<bool, String> {
        let comment = self.rest().trim_start();
        if comment.starts_with("/*") {
            let Some(end) = self.rest().find("*/") else { return self.error("unclosed comment") };
            self.offset += end + 2;
            let after = self.rest();
            let trims = after.trim_start().starts_with("-}}");
            let Some(close) = after.find("}}") else { return self.error("comment ends before closing delimiter") };
            self.offset += close + 2;
            self.tokens.pop();
            return Ok(trims);
        }
        loop {
            let rest = self.rest();
            let Some(c) = rest.chars().next() else { return self.error("unclosed action") };
            if rest.starts_with("}}") {
                self.push(Token::Right, 2);
                return Ok(false);
            }
            if c.is_whitespace() {
                let length = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
                if rest[length..].starts_with("-}}") {
                    self.push(Token::Right, length + 3);
                    return Ok(true);
                }
                self.push(Token::Space, length);
                continue;
            }
            self.token(c)?;
        }
    }

    fn token(&mut self, c: char) -> Result<(), String> {
        let rest = self.rest().to_owned();
        let name = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        match c {
            '"' => {
                let (text, length) = quoted(&rest).or_else(|e| self.error(&e))?;
                self.push(Token::Text1(text), length);
            }
            '`' => {
                let Some(end) = rest[1..].find('`') else { return self.error("unterminated raw quoted string") };
                self.push(Token::Text1(rest[1..=end].to_owned()), end + 2);
            }
            '\'' => {
                let Some(end) = rest[1..].find('\'') else { return self.error("unterminated character constant") };
                let inner = quoted(&format!("\"{}\"", &rest[1..=end])).map(|(t, _)| t).unwrap_or_default();
                self.push(Token::Char(inner.chars().next().map_or(0, |c| i64::from(u32::from(c)))), end + 2);
            }
            // At the very end Go takes a dot for a number.
            '.' if rest.len() > 1 && !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let length = name(&rest[1..]);
                self.push(Token::Field(rest[1..=length].to_owned()), length + 1);
            }
            '$' => {
                let length = name(&rest[1..]);
                self.push(Token::Variable(rest[..=length].to_owned()), length + 1);
            }
            ':' if rest.starts_with(":=") => self.push(Token::Sign(":="), 2),
            ':' => return self.error("expected :="),
            '=' => self.push(Token::Sign("="), 1),
            '|' => self.push(Token::Sign("|"), 1),
            ',' => self.push(Token::Sign(","), 1),
            '(' => self.push(Token::Sign("("), 1),
            ')' => self.push(Token::Sign(")"), 1),
            '+' | '-' | '.' | '0'..='9' => {
                let body = rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c));
                let length = body.map_or(rest.len(), |n| n + 1);
                if number(&rest[..length]).is_none() {
                    return self.error(&format!("illegal number syntax: {}", crate::text::quote(&rest[..length])));
                }
                self.push(Token::Number(rest[..length].to_owned()), length);
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = name(&rest);
                self.push(Token::Word(rest[..length].to_owned()), length);
            }
            c => return self.error(&format!("unexpected {} in command", crate::text::quote(&c.to_string()))),
        }
        Ok(())
    }
}

/// A text in double quotes: its value, and how long it was.
fn quoted(text: &str) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok((value, index + 1)),
            '\n' => break,
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some('a') => value.push('\u{7}'),
                Some('b') => value.push('\u{8}'),
                Some('f') => value.push('\u{c}'),
                Some('v') => value.push('\u{b}'),
                Some(c @ ('\\' | '"' | '\'')) => value.push(c),
                Some(c @ ('x' | 'u' | 'U')) => {
                    let count = match c {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    value.push(code.ok_or("invalid syntax")?);
                }
                Some(c @ '0'..='7') => {
                    let digits: String = [c].into_iter().chain(chars.by_ref().take(2).map(|(_, c)| c)).collect();
                    let code = u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32);
                    value.push(code.ok_or("invalid syntax")?);
                }
                _ => return Err("invalid syntax".into()),
            },
            c => value.push(c),
        }
    }
    Err("unterminated quoted string".into())
}

struct Parser {
    tokens: Vec<(Token, At, String)>,
    next: usize,
    variables: Vec<String>,
    loops: usize,
}

type Parsed<T> = Result<T, String>;

/// `end` or `else`, which closes a list of nodes.
type Closing = Option<(String, At)>;

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(t, ..)| t)
    }
    fn at(&self) -> At {
        self.tokens.get(self.next).or(self.tokens.last()).map(|(_, at, _)| *at).unwrap_or_default()
    }
    fn skip_space(&mut self) {
        while self.peek() == Some(&Token::Space) {
            self.next += 1;
        }
    }
    fn error<T>(&self, what: impl std::fmt::Display) -> Parsed<T> {
        Err(format!(":{}: {what}", self.at().line))
    }
    fn source(&self, from: usize) -> String {
        self.tokens[from..self.next].iter().map(|(_, _, s)| s.as_str()).collect::<String>().trim().to_owned()
    }

    fn nodes(&mut self) -> Parsed<(Vec<Node>, Closing)> {
        let mut nodes = Vec::new();
        while let Some(token) = self.peek().cloned() {
            self.next += 1;
            match token {
                Token::Text(text) => nodes.push(Node::Text(text)),
                _ => {
                    self.skip_space();
                    let at = self.at();
                    let word = match self.peek() {
                        Some(Token::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    if word == "end" || word == "else" {
                        self.next += 1;
                        return Ok((nodes, Some((word, at))));
                    }
                    nodes.push(self.action(&word)?);
                }
            }
        }
        Ok((nodes, None))
    }

    fn action(&mut self, word: &str) -> Parsed<Node> {
        let known = ["if", "with", "range", "define", "block", "template", "break", "continue"].contains(&word);
        if known {
            self.next += 1;
        }
        match word {
            "if" | "with" | "range" => self.control(word),
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.error(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                self.right(&format!("{{{{{word}}}}}"))?;
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
            "define" => {
                let name = self.name("define clause")?;
                self.right("define clause")?;
                let (nodes, closing) = self.nodes()?;
                self.expect_end(closing)?;
                Ok(Node::Define(name, nodes))
            }
            "template" => {
                let name = self.name("template clause")?;
                self.skip_space();
                let argument = if self.peek() == Some(&Token::Right) { None } else { Some(self.pipeline("template")?) };
                self.right("template clause")?;
                Ok(Node::Template(name, argument))
            }
            "block" => self.error("block is not supported here"),
            _ => {
                let pipeline = self.pipeline("command")?;
                self.right("command")?;
                Ok(Node::Action(pipeline))
            }
        }
    }

    fn name(&mut self, context: &str) -> Parsed<String> {
        self.skip_space();
        match self.peek().cloned() {
            Some(Token::Text1(name)) => {
                self.next += 1;
                Ok(name)
            }
            _ => self.error(format!("unexpected token in {context}")),
        }
    }

    fn control(&mut self, word: &str) -> Parsed<Node> {
        let known = self.variables.len();
        let pipeline = self.pipeline(word)?;
        self.right(word)?;
        self.loops += usize::from(word == "range");
        let (body, closing) = self.nodes()?;
        self.loops -= usize::from(word == "range");
        let otherwise = match closing {
            Some((closing, _)) if closing == "else" => {
                self.skip_space();
                match self.peek().cloned() {
                    // `else if` is an if inside else, with one end for both.
                    Some(Token::Word(again)) if again == word && word != "range" => {
                        self.next += 1;
                        let nested = self.control(word)?;
                        self.variables.truncate(known);
                        return Ok(node(word, pipeline, body, vec![nested]));
                    }
                    _ => {
                        self.right("else")?;
                        let (nodes, closing) = self.nodes()?;
                        self.expect_end(closing)?;
                        nodes
                    }
                }
            }
            closing => {
                self.expect_end(closing)?;
                Vec::new()
            }
        };
        self.variables.truncate(known);
        Ok(node(word, pipeline, body, otherwise))
    }

    fn expect_end(&mut self, closing: Closing) -> Parsed<()> {
        match closing {
            Some((word, _)) if word == "end" => self.right("end"),
            Some((word, at)) => Err(format!(":{}: unexpected {{{{{word}}}}}", at.line)),
            None => self.error("unexpected EOF"),
        }
    }

    fn right(&mut self, context: &str) -> Parsed<()> {
        self.skip_space();
        match self.peek() {
            Some(Token::Right) => {
                self.next += 1;
                Ok(())
            }
            _ => self.unexpected(context),
        }
    }

    fn unexpected<T>(&self, context: &str) -> Parsed<T> {
        let Some((token, _, source)) = self.tokens.get(self.next) else { return self.error("unexpected EOF") };
        let shown = match token {
            Token::Right | Token::Left => source.trim().to_owned(),
            _ => format!("<{source}>"),
        };
        self.error(format!("unexpected {shown} in {context}"))
    }

    fn pipeline(&mut self, context: &str) -> Parsed<Pipeline> {
        self.skip_space();
        let (variables, assigns) = self.declaration(context == "range")?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(Token::Right) | None => break,
                Some(Token::Sign(")")) => break,
                _ => {}
            }
            commands.push(self.command()?);
            self.skip_space();
            if self.peek() == Some(&Token::Sign("|")) {
                self.next += 1;
                self.skip_space();
                if matches!(self.peek(), Some(Token::Right | Token::Sign(")")) | None) {
                    return self.error(format!("missing value for {context}"));
                }
            }
        }
        if commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        // A constant at the end of a pipe would swallow what comes in.
        for command in &commands[1..] {
            if !matches!(
                command.words[0].term,
                Term::Function(_) | Term::Parenthesis(_) | Term::Dot | Term::Variable(_)
            ) {
                return self.error(format!("non executable command in pipeline stage {}", 2));
            }
        }
        Ok(Pipeline { variables, assigns, commands })
    }

    /// `$x :=`, `$k, $v :=`, `$x =`.
    fn declaration(&mut self, two: bool) -> Parsed<(Vec<String>, bool)> {
        let start = self.next;
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = self.peek().cloned() {
            self.next += 1;
            names.push(name);
            self.skip_space();
            match self.peek() {
                Some(Token::Sign(",")) if two && names.len() < 2 => {
                    self.next += 1;
                    self.skip_space();
                }
                Some(Token::Sign(":=")) => {
                    self.next += 1;
                    self.variables.extend(names.iter().cloned());
                    return Ok((names, false));
                }
                Some(Token::Sign("=")) => {
                    self.next += 1;
                    if let Some(unknown) = names.iter().find(|n| !self.variables.contains(n)) {
                        return self.error(format!("undefined variable {}", crate::text::quote(unknown)));
                    }
                    return Ok((names, true));
                }
                _ => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Parsed<Command> {
        let (start, at) = (self.next, self.at());
        let mut words = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(Token::Right | Token::Sign("|" | ")")) | None => break,
                _ => words.push(self.operand()?),
            }
            // Operands are told apart by spaces.
            match self.peek() {
                Some(Token::Space | Token::Right | Token::Sign("|" | ")")) | None => {}
                _ => return self.unexpected("operand"),
            }
        }
        if words.is_empty() {
            return self.error("empty command");
        }
        Ok(Command { words, at, source: self.source(start) })
    }

    fn operand(&mut self) -> Parsed<Operand> {
        let (start, mut at) = (self.next, self.at());
        let Some(token) = self.peek().cloned() else { return self.error("unexpected EOF") };
        self.next += 1;
        let mut fields = Vec::new();
        let term = match token {
            Token::Field(name) => {
                if !name.is_empty() {
                    fields.push(name);
                }
                Term::Dot
            }
            Token::Variable(name) => {
                if !self.variables.contains(&name) {
                    return self.error(format!("undefined variable {}", crate::text::quote(&name)));
                }
                Term::Variable(name)
            }
            Token::Word(word) => match word.as_str() {
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                "nil" => Term::Nil,
                name if super::functions::is_known(name) => Term::Function(word),
                name => return self.error(format!("function {} not defined", crate::text::quote(name))),
            },
            Token::Text1(text) => Term::Text(text),
            Token::Char(c) => Term::Int(c),
            Token::Number(text) => match number(&text) {
                Some(term) => term,
                None => return self.error(format!("illegal number syntax: {}", crate::text::quote(&text))),
            },
            Token::Sign("(") => {
                let pipeline = self.pipeline("parenthesized pipeline")?;
                self.skip_space();
                if self.peek() != Some(&Token::Sign(")")) {
                    return self.error("unclosed left paren");
                }
                self.next += 1;
                Term::Parenthesis(pipeline)
            }
            _ => {
                self.next -= 1;
                return self.unexpected("command");
            }
        };
        // A chain of fields stands, for Go, where its second link does.
        if matches!(self.peek(), Some(Token::Field(_))) {
            at = self.at();
        }
        while let Some(Token::Field(name)) = self.peek().cloned() {
            if name.is_empty() {
                return self.error("unexpected . after term");
            }
            if matches!(term, Term::Text(_) | Term::Int(_) | Term::Bool(_) | Term::Nil | Term::Float(_)) {
                return self.error(format!("unexpected . after term {}", crate::text::quote(&self.source(start))));
            }
            fields.push(name);
            self.next += 1;
        }
        Ok(Operand { term, fields, at, source: self.source(start) })
    }
}

fn node(word: &str, pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node>) -> Node {
    match word {
        "if" => Node::If(pipeline, body, otherwise),
        "with" => Node::With(pipeline, body, otherwise),
        _ => Node::Range(pipeline, body, otherwise),
    }
}

fn number(text: &str) -> Option<Term> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = |prefix: &str, radix| {
        digits.strip_prefix(prefix).and_then(|d| i64::from_str_radix(d, radix).ok()).map(|n| Term::Int(sign * n))
    };
    radix("0x", 16)
        .or_else(|| radix("0b", 2))
        .or_else(|| radix("0o", 8))
        .or_else(|| digits.parse().ok().map(|n: i64| Term::Int(sign * n)))
        .or_else(|| digits.parse().ok().map(|n: f64| Term::Float(sign as f64 * n)))
}
