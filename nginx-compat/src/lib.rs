//! nginx.conf → the words of config.yaml, and a report that says for each directive what became of it.
//!
//! Pure: files are read by the caller's closure. The steps, a module each, in the order a file meets them:
//! - `lex`: text → statements, byte for byte as nginx reads them;
//! - `tree`: statements → directives, `include` resolved;
//! - `check`: against `table`, which has a row for each directive nginx knows: context, arguments, fate;
//! - `scope`: inheritance, as nginx's merge functions do it;
//! - `translate`: what it means in Weir's words, with `value` and `variable` for nginx's grammars;
//! - [`fidelity`], [`place`]: the report, and the problems.
//!
//! Two rules of the translation: what nginx does without being asked is written out where Weir's default differs; and
//! where a protection has no counterpart, the route refuses everybody rather than nobody.

mod check;
pub mod fidelity;
mod lex;
pub mod place;
mod scope;
mod table;
mod translate;
mod tree;
mod value;
mod variable;

pub use fidelity::{Fidelity, Outcome};
pub use place::{At, Problem, Problems};
use weir_config::raw::Raw;

/// Reads what an `include` names (a path or a pattern, as written): names and texts in order, none where a pattern
/// matches nothing, or why they cannot be read.
pub type Read<'a> = dyn Fn(&str) -> Result<Vec<(String, String)>, String> + 'a;

/// A translated file.
#[derive(Debug, Clone)]
pub struct Translation {
    /// The words of config.yaml; [`weir_config::to_yaml`] writes them.
    pub raw: Raw,
    /// What became of each directive.
    pub report: Fidelity,
}

/// Translates nginx's configuration.
///
/// Shape:  `name` and `text` of nginx.conf, and `read` for its includes → raw configuration and report.
/// Errors: [`Problems`], all of them at once, when nginx would not start with this file either.
/// Source: nginx 1.22 to 1.29, `ngx_conf_file.c` and each module's command table.
pub fn translate(name: &str, text: &str, read: &Read<'_>) -> Result<Translation, Problems> {
    let mut problems = Problems::default();
    let mut ledger = fidelity::Ledger::default();
    let directives = tree::parse(name, text, read, &mut problems);
    check::check(&directives, table::MAIN, &mut ledger, &mut problems);
    problems.settle()?;
    let mut problems = Problems::default();
    let raw = translate::translate(&directives, &mut ledger, &mut problems);
    problems.settle()?;
    Ok(Translation { raw, report: ledger.report(&directives) })
}
