import { type z } from 'zod'
import { XosanError } from '../core/errors.ts'

/**
 * The text of a record, canonical.
 * @throws RECORD_INVALID rather than write what no host could read, or what would read back as something else
 */
export function serialiseRecord(schema: z.ZodType, key: string, record: object): string {
  const text = canonicalJson(record)
  if (canonicalJson(parseRecord(schema, key, text)) !== text) {
    throw new XosanError('RECORD_INVALID', { key, reason: 'it has a member that cannot be kept' })
  }
  return text
}

/**
 * JSON with the members of every object in alphabetical order, so that equal records are equal texts: a record can
 * then be compared, and shown in a diff, without being parsed.
 * @param value plain data; members that are undefined are left out
 */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    part !== null && typeof part === 'object' && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : part
  )
}

/**
 * Parses the text of a record.
 *
 * The schemas are strict: a member that this version does not know makes the record unreadable here, because writing
 * it back without that member would destroy what a newer version has put there.
 * @param key only for the message
 * @throws RECORD_INVALID
 */
export function parseRecord<Schema extends z.ZodType>(
  schema: Schema,
  key: string,
  text: string
): z.output<Schema> {
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch (cause) {
    throw new XosanError('RECORD_INVALID', { key, reason: 'it is not JSON' }, { cause })
  }
  const result = schema.safeParse(raw)
  if (!result.success) {
    throw new XosanError('RECORD_INVALID', { key, reason: firstIssue(result.error) }, { cause: result.error })
  }
  return result.data
}

function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0]
  return issue === undefined
    ? 'unknown'
    : `${issue.path.map(String).join('.') || 'the record'}: ${issue.message}`
}
