//! The formulas and paragraphs of `sections.rs` for the HTML page: a small part of TeX as MathML, and links, emphasis and
//! inline formulas of Markdown as HTML. What it does not know it shows as it stands; the test keeps that from the page.

use std::iter::Peekable;
use std::str::Chars;

/// A paragraph with `[links](url)`, `*emphasis*` and `$formulas$`.
pub(super) fn prose(text: &str) -> String {
    let mut out = String::from("<p>");
    for (i, part) in text.split('$').enumerate() {
        if i % 2 == 1 {
            out += &formula(part, false);
        } else {
            out += &links(part);
        }
    }
    out + "</p>"
}

fn links(text: &str) -> String {
    let Some((before, rest)) = text.split_once('[') else { return emphasis(text) };
    let parts = rest.split_once("](").and_then(|(label, rest)| Some((label, rest.split_once(')')?)));
    match parts {
        Some((label, (url, after))) => {
            format!("{}<a href=\"{}\">{}</a>{}", emphasis(before), escape(url), escape(label), links(after))
        }
        None => emphasis(text),
    }
}

fn emphasis(text: &str) -> String {
    let parts: Vec<String> = text.split('*').map(escape).collect();
    let tagged = parts.iter().enumerate().map(|(i, part)| match i % 2 {
        1 => format!("<em>{part}</em>"),
        _ => part.clone(),
    });
    tagged.collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// TeX as MathML; `display` on a line of its own.
pub(super) fn formula(tex: &str, display: bool) -> String {
    let mut reader = Reader { chars: tex.chars().peekable() };
    let display = if display { " display=\"block\"" } else { "" };
    format!("<math{display}><mrow>{}</mrow></math>", reader.row(None))
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    /// Everything up to `end`, which is taken too.
    fn row(&mut self, end: Option<char>) -> String {
        let mut out = String::new();
        while let Some(&next) = self.chars.peek() {
            if Some(next) == end {
                self.chars.next();
                break;
            }
            if next.is_whitespace() {
                self.chars.next();
            } else {
                out += &self.scripted();
            }
        }
        out
    }

    /// An atom with its primes, index and exponent.
    fn scripted(&mut self) -> String {
        let atom = self.atom();
        let (mut low, mut high) = (None, String::new());
        loop {
            match self.chars.peek() {
                Some('_') => low = Some(self.script()),
                Some('^') => high += &self.script(),
                Some('\'') => {
                    self.chars.next();
                    high += "<mo>\u{2032}</mo>";
                }
                _ => break,
            }
        }
        match (low, high.is_empty()) {
            (None, true) => atom,
            (Some(low), true) => format!("<msub>{atom}{low}</msub>"),
            (None, false) => format!("<msup>{atom}<mrow>{high}</mrow></msup>"),
            (Some(low), false) => format!("<msubsup>{atom}{low}<mrow>{high}</mrow></msubsup>"),
        }
    }

    /// What follows `_` or `^`. A word in braces is a name, not a product of letters.
    fn script(&mut self) -> String {
        self.chars.next();
        if self.chars.peek() != Some(&'{') {
            return self.atom();
        }
        self.chars.next();
        let rest: String = self.chars.clone().take_while(|&c| c != '}').collect();
        if rest.len() > 1 && rest.chars().all(|c| c.is_ascii_alphabetic()) {
            self.chars.nth(rest.len());
            return format!("<mi>{rest}</mi>");
        }
        format!("<mrow>{}</mrow>", self.row(Some('}')))
    }

    fn atom(&mut self) -> String {
        let Some(first) = self.chars.next() else { return "<mrow></mrow>".into() };
        match first {
            '{' => format!("<mrow>{}</mrow>", self.row(Some('}'))),
            '\\' => self.command(),
            '-' => "<mo>\u{2212}</mo>".into(),
            c if c.is_ascii_digit() => {
                let mut number = c.to_string();
                while let Some(&d) = self.chars.peek().filter(|d| d.is_ascii_digit()) {
                    number.push(d);
                    self.chars.next();
                }
                format!("<mn>{number}</mn>")
            }
            c if c.is_alphabetic() => format!("<mi>{c}</mi>"),
            // Not stretched: a bar or bracket belongs to its line.
            c => format!("<mo stretchy=\"false\">{}</mo>", escape(&c.to_string())),
        }
    }

    fn command(&mut self) -> String {
        let mut name = String::new();
        while let Some(&c) = self.chars.peek().filter(|c| c.is_ascii_alphabetic()) {
            name.push(c);
            self.chars.next();
        }
        if name.is_empty() {
            return match self.chars.next() {
                Some(',') => "<mspace width=\"0.17em\"/>".into(),
                other => format!("<mtext>\\{}</mtext>", escape(&other.map(String::from).unwrap_or_default())),
            };
        }
        match name.as_str() {
            "hat" | "bar" => {
                let mark = if name == "hat" { "^" } else { "\u{00af}" };
                while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
                format!("<mover accent=\"true\">{}<mo>{mark}</mo></mover>", self.atom())
            }
            "frac" | "tfrac" => format!("<mfrac>{}{}</mfrac>", self.atom(), self.atom()),
            "mathcal" | "mathbb" | "mathrm" => format!("<mi>{}</mi>", self.letters()),
            "left" | "right" => {
                format!("<mo>{}</mo>", escape(&self.chars.next().map(String::from).unwrap_or_default()))
            }
            "quad" => "<mspace width=\"1em\"/>".into(),
            "lVert" | "rVert" => "<mo stretchy=\"false\">\u{2016}</mo>".into(),
            "sim" => "<mo>\u{223c}</mo>".into(),
            "log" => "<mi>log</mi><mspace width=\"0.17em\"/>".into(),
            other => match LETTERS.iter().find(|(known, _)| *known == other) {
                Some((_, letter)) => format!("<mi>{letter}</mi>"),
                None => format!("<mtext>\\{other}</mtext>"),
            },
        }
    }

    /// The argument of a font, its script L and double-struck E as the characters that Unicode has for them.
    fn letters(&mut self) -> String {
        self.chars.next_if_eq(&'{');
        let text: String = std::iter::from_fn(|| self.chars.next_if(|c| *c != '}')).collect();
        self.chars.next();
        match text.as_str() {
            "L" => "\u{2112}".into(),
            "E" => "\u{1d53c}".into(),
            _ => text,
        }
    }
}

/// Greek and other letters by name.
const LETTERS: [(&str, &str); 13] = [
    ("alpha", "\u{3b1}"),
    ("beta", "\u{3b2}"),
    ("gamma", "\u{3b3}"),
    ("delta", "\u{3b4}"),
    ("epsilon", "\u{3b5}"),
    ("kappa", "\u{3ba}"),
    ("lambda", "\u{3bb}"),
    ("mu", "\u{3bc}"),
    ("pi", "\u{3c0}"),
    ("sigma", "\u{3c3}"),
    ("tau", "\u{3c4}"),
    ("omega", "\u{3c9}"),
    ("ell", "\u{2113}"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections::{FURTHER, INVERSE_Q, MAIN};

    #[test]
    fn formulas_become_mathml() {
        assert_eq!(
            formula("\\mathcal{L}_{sim} = x^2", false),
            "<math><mrow><msub><mi>\u{2112}</mi><mi>sim</mi></msub><mo stretchy=\"false\">=</mo>\
             <msup><mi>x</mi><mrow><mn>2</mn></mrow></msup></mrow></math>"
        );
        assert_eq!(
            formula("\\hat z_{t+1}", true),
            "<math display=\"block\"><mrow><msub><mover accent=\"true\"><mi>z</mi><mo>^</mo></mover><mrow><mi>t</mi>\
             <mo stretchy=\"false\">+</mo><mn>1</mn></mrow></msub></mrow></math>"
        );
        assert!(formula("V(s',g)", false).contains("<msup><mi>s</mi><mrow><mo>\u{2032}</mo></mrow></msup>"));
        assert!(formula("1(u<0)", false).contains("&lt;"));
        assert!(
            formula("\\tfrac{1}{4\\kappa}", false).contains("<mfrac><mrow><mn>1</mn></mrow><mrow><mn>4</mn>")
        );
    }

    #[test]
    fn every_section_is_understood() {
        for section in MAIN.iter().chain(INVERSE_Q).chain(FURTHER) {
            let shown =
                [formula(section.formula, true), prose(section.about), prose(section.symbols)].concat();
            assert!(!shown.contains('\\') && !shown.contains('$'), "{}: {shown}", section.title);
            for tag in ["mrow", "mi", "mo", "msub", "msup", "math", "a", "em"] {
                let count = |mark: &str| shown.matches(mark).count();
                let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
                assert_eq!(opened, count(&format!("</{tag}>")), "{}: {tag}", section.title);
            }
            assert!(shown.contains("<a href=\"https://arxiv.org/") || section.title == "LeWorldModel");
        }
        assert_eq!(prose("a *b* <c>"), "<p>a <em>b</em> &lt;c&gt;</p>");
    }
}
