/**
 * Whether one register could have behaved as its operations say.
 *
 * For registers to which every write brings a value of its own linearizability can be decided exactly (Gibbons and
 * Korach, "Testing shared memories", 1997): the operations on one value span a zone, from the first moment at which one
 * of them had ended to the last at which one began; a history is linearizable if and only if no two forward zones overlap
 * and no backward zone lies inside a forward one.
 *
 * Zeros are not such a value: many operations write them, and a new volume is full of them. Each write and each read of
 * zeros is a moment at which the register held them, so it may not lie inside the forward zone of another value; and
 * something that wrote zeros must explain each read of them: nothing else was there for certain in between.
 */

/** Value of a register that was never written, or was zeroed. */
export const ZEROS = 0

/** An operation on one register. Times are in milliseconds of virtual time. */
export interface Operation {
  readonly value: number
  readonly invokedAt: number
  /** By when it had its effect; Infinity when it may never have one. */
  readonly endedAt: number
  /** By when it had its effect if it ever has one; the same if not given. */
  readonly latestAt?: number
}

interface Zone {
  readonly value: number
  readonly written: number
  /** The first moment at which an operation on the value had ended. */
  end: number
  /** The last moment at which one began. */
  start: number
}

export interface RegisterHistory {
  /** What was there before; not ZEROS only if something is known to have been. */
  readonly initial: Operation
  readonly writes: readonly Operation[]
  readonly reads: readonly Operation[]
}

/** @returns why the register cannot have behaved so; null when it can */
export function registerConflict({ initial, writes, reads }: RegisterHistory): string | null {
  const all = [...writes, initial]
  const zones = new Map<number, Zone>()
  for (const { value, invokedAt, endedAt } of all) {
    // A write that nobody was told of and nobody saw need not have happened: its zone has no end.
    if (value !== ZEROS) zones.set(value, { value, written: invokedAt, start: invokedAt, end: endedAt })
  }
  for (const read of reads) {
    if (read.value === ZEROS) continue
    const zone = zones.get(read.value)
    if (zone === undefined) return `P1: ${seen(read)}, which was never written there`
    if (read.endedAt < zone.written) return `P4: ${seen(read)} before it was written`
    zone.end = Math.min(zone.end, read.endedAt)
    zone.start = Math.max(zone.start, read.invokedAt)
  }
  const forward = [...zones.values()].filter(({ start, end }) => end < start).sort((a, b) => a.end - b.end)
  return (
    zonesConflict(forward, [...zones.values()]) ??
    zerosInsideConflict(forward, all, reads) ??
    unexplainedZeros([...writes, ...reads], all, reads)
  )
}

const seen = ({ value, invokedAt, endedAt }: Operation): string =>
  `read as ${value === ZEROS ? 'zeros' : `write ${value}`} from ${invokedAt.toFixed(3)} to ${endedAt.toFixed(3)}`

function zonesConflict(forward: readonly Zone[], zones: readonly Zone[]): string | null {
  for (let i = 1; i < forward.length; i++) {
    const [earlier, later] = [forward[i - 1]!, forward[i]!]
    if (later.end < earlier.start)
      return `P4: went from write ${earlier.value} to write ${later.value} and back`
  }
  for (const { value, start, end } of zones) {
    if (end < start || end === Infinity) continue
    const around = insideOf(forward, start, end)
    if (around !== null) return `P1/P4: read as write ${around.value} although write ${value} had replaced it`
  }
  return null
}

/** Zeros were there, for certain, in the middle of a time in which another value was. */
function zerosInsideConflict(
  forward: readonly Zone[],
  writes: readonly Operation[],
  reads: readonly Operation[]
): string | null {
  for (const zero of [...writes, ...reads]) {
    if (zero.value !== ZEROS || zero.endedAt === Infinity) continue
    const around = insideOf(forward, zero.invokedAt, zero.endedAt)
    if (around === null) continue
    const when = `from ${zero.invokedAt.toFixed(3)} to ${zero.endedAt.toFixed(3)}`
    return `P1/P4: read as write ${around.value} although it was zeros ${when}`
  }
  return null
}

/** The forward zones do not overlap here and are in order, so at most one can be around a range. */
function insideOf(forward: readonly Zone[], start: number, end: number): Zone | null {
  let [low, high] = [0, forward.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (forward[middle]!.end < start) low = middle + 1
    else high = middle
  }
  const zone = forward[low - 1]
  return zone !== undefined && zone.end < start && end < zone.start ? zone : null
}

function unexplainedZeros(
  operations: readonly Operation[],
  writes: readonly Operation[],
  reads: readonly Operation[]
): string | null {
  // The last ones first: they explain nearly every read.
  const zeros = writes.filter(({ value }) => value === ZEROS).sort((a, b) => b.invokedAt - a.invokedAt)
  const others = operations.filter(({ value, endedAt }) => value !== ZEROS && endedAt < Infinity)
  for (const read of reads) {
    if (read.value !== ZEROS) continue
    // Another value was there for certain after these zeros and before the read.
    const isOverwritten = ({ endedAt, latestAt = endedAt }: Operation): boolean =>
      others.some(other => other.invokedAt > latestAt && other.endedAt < read.invokedAt)
    if (zeros.some(zero => zero.invokedAt <= read.endedAt && !isOverwritten(zero))) continue
    return `P1/P4: ${seen(read)}, but zeros were overwritten before`
  }
  return null
}
