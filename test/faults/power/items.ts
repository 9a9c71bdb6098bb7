/**
 * What the items are that are written in the guest, and what a chain of them leaves. Guest and runner both compute it, so
 * that only numbers and short texts travel between them.
 *
 * A chain is a sequence of items 1, 2, 3, ... each of which is sent only when the one before was acknowledged. After a
 * power cut it must stand at the last one that was acknowledged, or at the one that was in flight.
 */

/**
 * What a chain leaves. `slots`: item n is put into one of a few places, and with some another one is emptied, at once;
 * `steps`: the same for who can only do one of both: some items only empty a place; `last`: only the newest item is seen;
 * `cycle`: the same, and there are only a few different ones; `toggle`: every other item removes the one before.
 */
export type Shape = 'slots' | 'steps' | 'last' | 'cycle' | 'toggle'

export const SLOTS = 8
export const CYCLE = 4
/** Larger than a page of SQLite and of bbolt, so that items take whole pages, overflow pages, and parts of some. */
const BYTES_MAX = 6_000

/** Slot number -> the item in it. */
export type Slots = ReadonlyMap<number, number>

/** What item n changes: the slot that it is put into, and one that is emptied, or null. */
export function changeOf(
  shape: 'slots' | 'steps',
  n: number
): { readonly put: number | null; readonly removed: number | null } {
  const removed = n % 5 === 0 ? (n + 3) % SLOTS : null
  return { put: shape === 'steps' && removed !== null ? null : n % SLOTS, removed }
}

function slotsAfter(shape: 'slots' | 'steps', n: number): Slots {
  const slots = new Map<number, number>()
  for (let item = 1; item <= n; item++) {
    const { put, removed } = changeOf(shape, item)
    if (put !== null) slots.set(put, item)
    if (removed !== null) slots.delete(removed)
  }
  return slots
}

/** What is found when a chain stands at an item; 0 before the first one. */
export function standingAt(shape: Shape, n: number): string {
  if (shape === 'last') return String(n)
  if (shape === 'cycle') return String(n % CYCLE)
  if (shape === 'toggle') return String(n % 2 === 0 ? 0 : n)
  return slotsText(slotsAfter(shape, n), shape === 'slots' ? n : null)
}

/**
 * The same, of what was found.
 *
 * @param head number of the newest item where there is one to be seen apart from its slot
 */
export function slotsText(slots: Slots, head: number | null): string {
  const sorted = [...slots].sort(([a], [b]) => a - b).map(([slot, item]) => `${slot}=${item}`)
  return [...(head === null ? [] : [`${head}:`]), ...sorted].join(' ')
}

/** The text of an item, of some bytes to some thousands. */
export function textOf(chain: string, n: number): string {
  const head = `${chain} ${n} `
  const length = (n * 2_654_435_761) % BYTES_MAX
  return head + 'abcdefghijklmnopqrstuvwxyz'.repeat(Math.ceil(length / 26)).slice(0, length)
}

/** Which item a text is. @throws Error when it is none, for instance cut off or mixed */
export function itemIn(chain: string, text: string): number {
  const n = Number(/ (\d+) /.exec(text.slice(0, 100))?.[1])
  if (text !== textOf(chain, n)) {
    throw new Error(
      `${chain}: ${text.length} characters that are no item, beginning with "${text.slice(0, 60)}"`
    )
  }
  return n
}

/** A UUID that carries a number. */
export const uuidOf = (n: number): string => `00000000-0000-4000-8000-${n.toString(16).padStart(12, '0')}`
export const numberIn = (uuid: string): number => Number.parseInt(uuid.slice(-12), 16)
