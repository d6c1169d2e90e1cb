//! Why YAML could not be read on: its parser says where it stopped, which is often lines behind the mistake.

use crate::span::Place;

/// What probably went wrong where reading stopped: something that YAML sees as a bracket, or a bracket that nobody closed.
pub(super) fn hint(text: &str, stopped: Place) -> Option<String> {
    let mut open: Vec<(char, Place)> = Vec::new();
    for (line, number) in text.lines().zip(1..=stopped.line) {
        let (mut quote, mut before) = (None, ' ');
        for (c, column) in line.chars().zip(1_u32..) {
            let place = Place { line: number, column };
            match (quote, c) {
                (Some(by), _) => quote = quote.filter(|_| c != by),
                (None, '#') if before.is_whitespace() => break,
                // An apostrophe within a word is one.
                (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
                (None, '{') if before == '$' && !open.is_empty() => {
                    return (number == stopped.line).then(|| {
                        "inside of `[ ]` and `{ }` a value with `${…}` needs quotes: `\"${NAME}:80\"`"
                            .to_owned()
                    });
                }
                (None, '{') if before == '$' => {}
                (None, '[' | '{') if place < stopped => open.push((c, place)),
                (None, ']' | '}') => drop(open.pop()),
                _ => {}
            }
            before = c;
        }
    }
    let (bracket, place) = open.last().filter(|(_, place)| place.line < stopped.line)?;
    Some(format!("`{bracket}` of line {}, column {} is not closed", place.line, place.column))
}

#[cfg(test)]
mod tests {
    use crate::{report::Report, text::parse};

    fn problems(text: &str) -> Report {
        let mut report = Report::new("t", text);
        assert!(parse(text, &|_| None, &mut report).is_none(), "{text}");
        report
    }

    #[test]
    fn who_forgot_a_bracket_or_quotes_hears_where() {
        for (text, expected) in [
            ("a: [x, y\nb: z\n", "`[` of line 1, column 4 is not closed"),
            ("a: { b: [1, 2], c: { d: 1 }\ne: f\n", "`{` of line 1, column 4 is not closed"),
            ("a: [x, ${HOST}:80]\n", "needs quotes"),
            ("a: '[' # {\nb: [x # ]\nc: d\n", "`[` of line 2, column 4 is not closed"),
        ] {
            let report = problems(text);
            let help = report.problems().first().and_then(|problem| problem.help.clone()).unwrap_or_default();
            assert!(help.contains(expected), "{text}: {report}");
        }
        let report = problems("a: 'it\nb: c: d\n");
        assert!(report.has_errors() && !report.to_string().contains("is not closed"), "{report}");
    }
}
