import assert from 'node:assert/strict'
import { REGION_BYTES, type RegionIndex } from '../../core/units.ts'
import { type RegionSet } from '../../core/mirror/region-set.ts'

/** A change that fills a range with one byte value. */
export interface ModelChange {
  readonly order: number
  readonly start: number
  readonly end: number
  readonly value: number
  /** What it left, byte by byte, when its process died before it ended. */
  remains?: Uint8Array
}

const valueAt = ({ start, value, remains }: ModelChange, at: number): number =>
  remains === undefined ? value : remains[at - start]!

/**
 * What a replica may show after a crash, byte by byte, from what it was asked and what it acknowledged.
 *
 * Changes that overlap are never under way together, so their order is the order of their numbers.
 */
export class ReplicaModel {
  /** Content that is certainly durable, and the change that each byte of it stems from. */
  readonly #durable: Uint8Array
  readonly #durableOrder: Uint32Array
  /** Content as acknowledged, which the death of a process does not change. */
  readonly #acknowledged: Uint8Array
  /** Content when a region's intent was last cleared: what all replicas agreed on. */
  readonly #agreed: Uint8Array
  /** Changes that a power cut may undo, acknowledged ones and others. */
  #pending: ModelChange[] = []
  readonly underWay = new Set<ModelChange>()
  #changes = 0

  constructor(sizeMax: number) {
    this.#durable = new Uint8Array(sizeMax)
    this.#durableOrder = new Uint32Array(sizeMax)
    this.#acknowledged = new Uint8Array(sizeMax)
    this.#agreed = new Uint8Array(sizeMax)
  }

  begin(start: number, end: number, value: number): ModelChange {
    this.#changes += 1
    const change = { order: this.#changes, start, end, value }
    this.underWay.add(change)
    this.#pending.push(change)
    return change
  }

  overlapsUnderWay(start: number, end: number): boolean {
    for (const change of this.underWay) if (change.start < end && start < change.end) return true
    return false
  }

  acknowledge(change: ModelChange): void {
    this.underWay.delete(change)
    this.#acknowledged.fill(change.value, change.start, change.end)
  }

  /** The changes that a flush which begins now covers. */
  finished(): ModelChange[] {
    return this.#pending.filter(change => !this.underWay.has(change))
  }

  makeDurable(changes: readonly ModelChange[]): void {
    const covered = new Set(changes)
    for (const change of changes) {
      for (let at = change.start; at < change.end; at += 1) {
        if (this.#durableOrder[at]! > change.order) continue
        this.#durable[at] = valueAt(change, at)
        this.#durableOrder[at] = change.order
      }
    }
    this.#pending = this.#pending.filter(change => !covered.has(change))
  }

  /** Regions whose intent a mirror may clear now: everything in them is durable. */
  isSettled(region: number): boolean {
    const start = region * REGION_BYTES
    return !this.#pending.some(change => change.start < start + REGION_BYTES && start < change.end)
  }

  agree(region: RegionIndex): void {
    const start = region * REGION_BYTES
    this.#agreed.set(this.#acknowledged.subarray(start, start + REGION_BYTES), start)
  }

  /** After the death of a process: every acknowledged byte, and of changes under way any part. */
  checkAfterProcessDeath(actual: Uint8Array): void {
    this.#check(actual, this.#acknowledged, [...this.underWay], () => 0)
    this.#acknowledged.set(actual)
    for (const change of this.underWay) change.remains = actual.slice(change.start, change.end)
    this.underWay.clear()
  }

  /** After a power cut: every durable byte, and of later changes any part. */
  checkAfterPowerCut(actual: Uint8Array): void {
    this.#check(actual, this.#durable, this.#pending, at => this.#durableOrder[at]!)
    this.#durable.set(actual)
    this.#durableOrder.fill(this.#changes, 0, actual.length)
    this.#acknowledged.set(actual)
    this.underWay.clear()
    this.#pending = []
  }

  /** While it serves. */
  checkNow(actual: Uint8Array, start: number): void {
    const expected = this.#acknowledged.subarray(start, start + actual.length)
    assert(Buffer.compare(actual, expected) === 0, `a read of ${actual.length} bytes at ${start} is wrong`)
  }

  /** Every byte that differs from what replicas agreed on has an intent. */
  checkIntents(actual: Uint8Array, intents: RegionSet): void {
    for (let at = 0; at < actual.length; at += 1) {
      if (actual[at] === this.#agreed[at]) continue
      const region = Math.floor(at / REGION_BYTES) as RegionIndex
      assert(intents.has(region), `byte ${at} differs, but region ${region} has no intent`)
      at = (region + 1) * REGION_BYTES - 1
    }
  }

  #check(
    actual: Uint8Array,
    expected: Uint8Array,
    also: readonly ModelChange[],
    orderOf: (at: number) => number
  ): void {
    for (let at = 0; at < actual.length; at += 1) {
      const byte = actual[at]!
      if (byte === expected[at]) continue
      const allowed = also.some(
        change =>
          change.start <= at && at < change.end && valueAt(change, at) === byte && change.order > orderOf(at)
      )
      assert(allowed, `byte ${at} is ${byte}, not ${expected[at]!} nor of any change that could show there`)
    }
  }
}
