import { type Records } from './records.ts'

/** Parses the records of a prefix, leaving out those with a problem, which `Records.problems` tells. */
export function readableRecords<T>(
  records: Records,
  prefix: string,
  parse: (key: string, text: string) => T
): T[] {
  const problems = new Set(records.problems(prefix).map(({ key }) => key))
  return records
    .list(prefix)
    .filter(({ key }) => !problems.has(key))
    .map(({ key, value }) => parse(key, value))
}
