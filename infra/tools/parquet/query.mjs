// Answers questions about Parquet files, as JSON. It is what TestParquetReaders of
// ../../../integration runs, in the folder that the packages are installed in:
//
//   node query.mjs '[{"sql": "select 1 as one"}, {"file": "x.parquet"}]'
//
// DuckDB is asked "sql", and hyparquet reads "file". An answer is an array of rows.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const installed = createRequire(process.cwd() + '/')
const load = async (name) => import(pathToFileURL(installed.resolve(name)))

const duckdb = (await load('@duckdb/node-api')).default
const { parquetReadObjects } = await load('hyparquet')
const { compressors } = await load('hyparquet-compressors')

const db = await (await duckdb.DuckDBInstance.create(':memory:')).connect()
await db.run("set timezone = 'UTC'")

async function answer({ sql, file }) {
  if (file) {
    const b = readFileSync(file)
    return parquetReadObjects({ file: b.buffer.slice(b.byteOffset, b.byteOffset + b.length), compressors })
  }
  return (await db.runAndReadAll(sql)).getRowObjectsJson()
}

const answers = []
for (const q of JSON.parse(process.argv[2])) answers.push(await answer(q))
const plain = (_, v) => (typeof v === 'bigint' ? v.toString() : v)
process.stdout.write(JSON.stringify(answers, plain))
