//! Many rows at once: COPY into Postgres, long INSERTs into SQLite. Rows that exist are left as they are.

use std::fmt::Write as _;

use indicatif::ProgressBar;
use sqlx::{AssertSqlSafe, QueryBuilder, Result, SqlitePool};
use uuid::Uuid;

use crate::database::{Database, Moment, Pool, Words};

/// Rows of one COPY: some megabytes, after which the progress shows.
const COPIED: u64 = 20_000;
/// Rows of one INSERT: at most 12 values each, within SQLite's 32 766 parameters.
const INSERTED: u64 = 1000;

/// Where rows go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// In the order of the cells; the others stay null.
    pub(super) columns: &'static [&'static str],
}

/// One value of a row.
#[derive(Debug)]
pub(super) enum Cell {
    Null,
    Id(Uuid),
    Text(String),
    Number(i64),
    Flag(bool),
    At(Moment),
    Words(Words),
    Bytes(Vec<u8>),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Words> for Cell {
    fn from(words: Words) -> Self {
        Self::Words(words)
    }
}

/// Adds `row(0)` to `row(count - 1)`.
///
/// # Errors
/// What the store said.
pub(super) async fn fill(
    database: &Database,
    table: Table,
    count: u64,
    row: &(dyn Fn(u64) -> Vec<Cell> + Sync),
    progress: &ProgressBar,
) -> Result<()> {
    let size = match database {
        Database::Sqlite(_) => INSERTED,
        Database::Postgres(_) => COPIED,
    };
    let mut start = 0;
    while start < count {
        let end = count.min(start + size);
        let rows = (start..end).map(row);
        match database {
            Database::Sqlite(pool) => insert(pool, table, rows).await?,
            Database::Postgres(pool) => copy(pool, table, rows).await?,
        }
        progress.set_position(end);
        start = end;
    }
    Ok(())
}

/// Lets the planner know what came in, and index scans trust the pages it came in.
///
/// # Errors
/// What the store said.
pub(super) async fn settle(database: &Database) -> Result<()> {
    match database {
        Database::Sqlite(pool) => sqlx::query("ANALYZE").execute(pool).await.map(drop),
        Database::Postgres(pool) => sqlx::raw_sql("VACUUM (ANALYZE)").execute(pool).await.map(drop),
    }
}

/// COPY knows no ON CONFLICT: into a table of this transaction first.
async fn copy(pool: &Pool, table: Table, rows: impl Iterator<Item = Vec<Cell>>) -> Result<()> {
    let Table { name, columns } = table;
    let columns = columns.join(", ");
    let mut text = String::new();
    for row in rows {
        for (n, cell) in row.iter().enumerate() {
            if n > 0 {
                text.push('\t');
            }
            cell.copied(&mut text);
        }
        text.push('\n');
    }
    let mut transaction = pool.begin().await?;
    let stage =
        format!("CREATE TEMPORARY TABLE stage ON COMMIT DROP AS SELECT {columns} FROM {name} WITH NO DATA");
    sqlx::query(AssertSqlSafe(stage)).execute(&mut *transaction).await?;
    let mut stage = transaction.connection().copy_in_raw("COPY stage FROM STDIN").await?;
    stage.send(text.into_bytes()).await?;
    stage.finish().await?;
    let insert = format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM stage ON CONFLICT DO NOTHING");
    sqlx::query(AssertSqlSafe(insert)).execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn insert(pool: &SqlitePool, table: Table, rows: impl Iterator<Item = Vec<Cell>>) -> Result<()> {
    let Table { name, columns } = table;
    QueryBuilder::new(format!("INSERT INTO {name} ({}) ", columns.join(", ")))
        .push_values(rows, |mut values, row| {
            for cell in row {
                match cell {
                    Cell::Null => values.push("NULL"),
                    Cell::Id(id) => values.push_bind(id),
                    Cell::Text(text) => values.push_bind(text),
                    Cell::Number(number) => values.push_bind(number),
                    Cell::Flag(flag) => values.push_bind(flag),
                    Cell::At(moment) => values.push_bind(moment),
                    Cell::Words(words) => values.push_bind(words),
                    Cell::Bytes(bytes) => values.push_bind(bytes),
                };
            }
        })
        .push(" ON CONFLICT DO NOTHING")
        .build()
        .execute(pool)
        .await
        .map(drop)
}

impl Cell {
    /// As COPY's text format has it (Postgres manual, COPY, "Text Format").
    fn copied(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("\\N"),
            Self::Text(text) => escape(text, out),
            Self::Id(id) => write!(out, "{id}").expect("a string takes everything"),
            Self::Number(number) => write!(out, "{number}").expect("a string takes everything"),
            Self::Flag(flag) => out.push(if *flag { 't' } else { 'f' }),
            Self::At(moment) => write!(out, "{}", moment.timestamp()).expect("a string takes everything"),
            Self::Bytes(bytes) => {
                out.push_str("\\\\x");
                for byte in bytes {
                    write!(out, "{byte:02x}").expect("a string takes everything");
                }
            }
            Self::Words(words) => {
                let quoted =
                    words.0.iter().map(|w| format!("\"{}\"", w.replace('\\', r"\\").replace('"', "\\\"")));
                escape(&format!("{{{}}}", quoted.collect::<Vec<_>>().join(",")), out);
            }
        }
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_as_copy_reads_them() {
        for (cell, wanted) in [
            (Cell::Null, r"\N"),
            ("a\tb\\N\n".into(), r"a\tb\\N\n"),
            (Cell::Bytes(vec![0, 255]), r"\\x00ff"),
            (Words(vec!["a".into(), "b\"\\".into()]).into(), r#"{"a","b\\"\\\\"}"#),
            (Cell::Flag(true), "t"),
        ] {
            let mut out = String::new();
            cell.copied(&mut out);
            assert_eq!(out, wanted, "{cell:?}");
        }
    }
}
