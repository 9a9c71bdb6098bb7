/** What every coordinator refuses, so that a record that one of them takes is taken by all. */
import { XosanError } from '../core/errors.ts'
import { type Change, type Condition } from '../core/ports/coordinator.ts'

/** All values of a transaction together: with its keys, below what etcd takes in one request by default (1.5 MiB). */
const VALUES_BYTES_MAX = 1024 * 1024
/** etcd's default limit of operations in one transaction. */
export const TRANSACTION_KEYS_MAX = 128
const KEY_LENGTH_MAX = 512
/** ASCII, so that byte order, JavaScript's order and SQLite's order are one; `~` is kept as an end of ranges. */
const KEY = /^[A-Za-z0-9][A-Za-z0-9._/-]*$/

/** Higher than every character that a key may have. */
const AFTER_ALL_KEYS = '~'

/** First text after all keys that start with a prefix. */
export const endOfPrefix = (prefix: string): string => `${prefix}${AFTER_ALL_KEYS}`

/** @throws INVALID_ARGUMENT */
export function checkKey(key: string): void {
  if (key.length > KEY_LENGTH_MAX || !KEY.test(key)) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `the key "${key.slice(0, KEY_LENGTH_MAX)}"`,
      reason: `keys are 1 to ${KEY_LENGTH_MAX} letters, digits and . _ / -`,
    })
  }
}

/** A prefix may also be empty: every key. @throws INVALID_ARGUMENT */
export function checkPrefix(prefix: string): void {
  if (prefix !== '') {
    checkKey(prefix)
  }
}

/** @throws INVALID_ARGUMENT when a key, a value or their number is not what every coordinator takes */
export function checkTransaction(conditions: readonly Condition[], changes: readonly Change[]): void {
  if (conditions.length > TRANSACTION_KEYS_MAX || changes.length > TRANSACTION_KEYS_MAX) {
    throw refused(`it has more than ${TRANSACTION_KEYS_MAX} conditions or changes`)
  }
  for (const { key, revision } of conditions) {
    checkKey(key)
    if (!Number.isSafeInteger(revision) || revision < 0) {
      throw refused(`the revision ${revision} of ${key} is no whole number`)
    }
  }
  const changed = new Set<string>()
  let bytes = 0
  for (const { key, value } of changes) {
    checkKey(key)
    if (changed.has(key)) {
      throw refused(`it changes ${key} twice`)
    }
    changed.add(key)
    bytes += value === null ? 0 : Buffer.byteLength(value)
    if (bytes > VALUES_BYTES_MAX) {
      throw refused(`its values up to ${key} are longer than ${VALUES_BYTES_MAX} bytes`)
    }
  }
}

const refused = (reason: string): XosanError =>
  new XosanError('INVALID_ARGUMENT', { what: 'the transaction', reason })
