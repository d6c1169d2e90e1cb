//! Every directive against the table: known, in the right place, with the right number of arguments, as often as allowed.
//!
//! Notes the outcome of those whose row already says it. Wording is nginx's (`ngx_conf_handler`).

use crate::{
    fidelity::{Ledger, Outcome},
    place::Problems,
    table::{self, Args, Body, Contexts, Fate, Row, Times},
    tree::Directive,
};

/// Checks `directives`, which stand in `context`, and everything inside them.
pub(crate) fn check(
    directives: &[Directive],
    context: Contexts,
    ledger: &mut Ledger,
    problems: &mut Problems,
) {
    let mut said: Vec<&Row> = Vec::new();
    for directive in directives {
        let Some(row) = table::row(&directive.name, context) else {
            unknown(directive, problems);
            continue;
        };
        if !shape_fits(directive, row, problems) {
            continue;
        }
        if row.times == Times::Once {
            if said.iter().any(|before| std::ptr::eq(*before, row)) {
                problems.add(&directive.at, format!("\"{}\" directive is duplicate", directive.name));
            }
            said.push(row);
        }
        let outcome = match row.fate {
            Fate::Means => None,
            Fate::Ignored(why) => Some(Outcome::Ignored(why.to_owned())),
            Fate::Refused(what_to_do) => Some(Outcome::Refused(what_to_do.to_owned())),
        };
        if let Some(outcome) = &outcome {
            ledger.note(directive, outcome.clone());
        }
        match row.body {
            Body::None => {}
            Body::Of(inner) => check(directive.inside(), inner, ledger, problems),
            Body::Words => share(directive.inside(), outcome.as_ref(), ledger),
        }
        // What stands in a block that is left out is left out with it.
        if let (Body::Of(_), Fate::Refused(what_to_do)) = (row.body, row.fate) {
            share(directive.inside(), Some(&Outcome::Refused(what_to_do.to_owned())), ledger);
        }
    }
}

fn share(directives: &[Directive], outcome: Option<&Outcome>, ledger: &mut Ledger) {
    for directive in directives {
        if let Some(outcome) = outcome {
            ledger.note(directive, outcome.clone());
        }
        share(directive.inside(), outcome, ledger);
    }
}

fn unknown(directive: &Directive, problems: &mut Problems) {
    let name = &directive.name;
    if table::named(name).next().is_some() {
        return problems.add(&directive.at, format!("\"{name}\" directive is not allowed here"));
    }
    let message = format!("unknown directive \"{name}\"");
    let close = table::rows()
        .map(|row| (strsim::damerau_levenshtein(name, row.name), row.name))
        .filter(|(distance, close)| *distance <= (close.len() / 3).min(3))
        .min();
    match close {
        Some((_, close)) => {
            problems.add_with_help(&directive.at, message, format!("did you mean \"{close}\"?"));
        }
        None => problems.add(&directive.at, message),
    }
}

fn shape_fits(directive: &Directive, row: &Row, problems: &mut Problems) -> bool {
    let (name, at) = (&directive.name, &directive.at);
    match (&directive.block, row.body) {
        (None, Body::Of(_) | Body::Words) => {
            problems.add(at, format!("directive \"{name}\" has no opening \"{{\""));
            return false;
        }
        (Some(_), Body::None) => {
            problems.add(at, format!("directive \"{name}\" is not terminated by \";\""));
            return false;
        }
        _ => {}
    }
    let count = directive.args.len();
    let fits = match row.args {
        Args::Between(least, most) => (least..=most).contains(&count),
        Args::Flag => count == 1,
    };
    if !fits {
        let message = format!("invalid number of arguments in \"{name}\" directive");
        // The usual reason is a forgotten `;`: then the next line's directive has become an argument.
        let swallowed = directive
            .args
            .iter()
            .find(|word| word.at.line > at.line && table::named(&word.text).next().is_some());
        match swallowed {
            Some(word) => {
                let help = format!("is \";\" missing before \"{}\" in line {}?", word.text, word.at.line);
                problems.add_with_help(at, message, help);
            }
            None => problems.add(at, message),
        }
    } else if row.args == Args::Flag && !matches!(directive.arg(0), "on" | "off") {
        let value = directive.arg(0);
        problems.add(
            at,
            format!("invalid value \"{value}\" in \"{name}\" directive, it must be \"on\" or \"off\""),
        );
    }
    fits
}
