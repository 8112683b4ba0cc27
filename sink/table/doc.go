// Package table turns the stored lines of a run into tables: JSON lines, CSV or
// Parquet.
//
// A stored line nests; a table is flat. A [Catalog] knows what columns there are:
// what every line records (see [Catalog.Names]), and the fields of the JSON Schema
// that the run's answers were held to. It gives the columns of a [Table], which
// makes a [Row] of each line. [Parts] writes rows into files, and a [Target] is
// where these end up.
//
// # Columns of a schema
//
// The properties come in the schema's order. Those of an object within are
// flattened, so that name in party becomes party_name. Types are
//
//	string                      string; with format date a date, with date-time a timestamp
//	integer, number, boolean    int64, double, bool
//	enum or const of one type   that type
//	array of any of these       a list
//	anything else               json, which is text
//
// null beside a type, in a list of types or in anyOf, is allowed for: all columns but
// custom_id and status may be null. A $ref into the schema is followed, and one that
// leads back to itself is json. A type that stands beside a $ref, anyOf, oneOf or allOf
// counts when what these say has another one, or none.
//
// Names are told apart without regard to case, as query engines do not regard it
// either. A field whose name is taken, by what every line records or by a column of
// the partition, is prefixed with output_; if that is taken too, a number follows. A
// comma in a name becomes _, and an answer that is no object is called value.
//
// # Values
//
// A value that its column's type has no room for is a [MisfitError], never a null:
// a number in a date, a fraction in an int64. An int64 takes 1.0 and 1e3, as JSON
// Schema's integer does; a string and a json take everything. Timestamps are kept in
// microseconds, UTC.
//
// # Formats
//
// JSON lines are the stored lines, byte for byte, unless columns were chosen: then
// each row is one flat object. CSV is RFC 4180's with a header and line feeds; null is
// the empty field, and so is the empty string. A spreadsheet may take a cell that
// begins with = for a formula: to look at answers that one does not trust, Parquet is
// better. Parquet is compressed with zstd, in version 1 pages with plain and
// dictionary encodings, which all readers know; a json column is a string there.
//
// # Files
//
// [Parts] begins a new file when one has grown to its size, and one for each day
// when rows are partitioned. A [Target] that holds files is a dataset:
//
//	part-00000.<ext>                        rows
//	date=2026-11-24/part-00000.<ext>        rows of that day, when partitioned by date
//	_SUCCESS                                what was written; only when all of it was
//	_INCOMPLETE                             until then
//
// [Begin] takes away what an earlier export of the same run left, _SUCCESS first, and
// [Dataset.Finish] writes _SUCCESS last: whoever waits for it never reads a mixture.
// _INCOMPLETE names the export that is under way. Of two at once, the one that began
// first finds that out when it puts its next file, and fails.
package table
