import assert from 'node:assert/strict'
import fc from 'fast-check'
import { type Access, RequestOrder } from '../../../../core/mirror/request-order.ts'

interface Numbered {
  readonly number: number
  readonly offset: number
  readonly length: number
  readonly access: Access
}

const overlap = (a: Numbered, b: Numbered): boolean => {
  for (let byte = a.offset; byte < a.offset + a.length; byte++) {
    if (byte >= b.offset && byte < b.offset + b.length) return true
  }
  return false
}
/** Two that share bytes exclude each other unless both only look, or one copies what the other reads. */
const exclude = (a: Numbered, b: Numbered): boolean => {
  if (!overlap(a, b)) return false
  if (a.access === 'change' || b.access === 'change') return true
  return a.access === 'lock' && b.access === 'lock'
}

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      access: fc.constantFrom<Access>('read', 'change', 'change', 'lock'),
      offset: fc.nat(12),
      length: fc.integer({ min: 1, max: 6 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ finish: fc.nat(20) }) }
)

/** Requests and ends in any sequence, checked after every step; then everything is ended. */
class Trial {
  readonly #order = new RequestOrder<Numbered>()
  readonly #all: Numbered[] = []
  readonly #running: Numbered[] = []
  readonly #waiting: Numbered[] = []
  /** When each began, as a position among all beginnings. */
  readonly #begun = new Map<Numbered, number>()

  submit(shape: Omit<Numbered, 'number'>): void {
    const request = { number: this.#all.length, ...shape }
    this.#all.push(request)
    if (this.#order.submit(request)) this.#begin(request)
    else this.#waiting.push(request)
    this.#check()
  }

  finish(index: number): void {
    if (this.#running.length === 0) return
    const [request] = this.#running.splice(index % this.#running.length, 1)
    for (const next of this.#order.finish(request!)) {
      const index = this.#waiting.indexOf(next)
      assert.notEqual(index, -1, 'only who waits comes back, once')
      this.#waiting.splice(index, 1)
      this.#begin(next)
    }
    this.#check()
  }

  end(): void {
    while (this.#running.length > 0) this.finish(0)
    assert.deepEqual(this.#waiting, [], 'nobody waits for ever')
    for (const [i, one] of this.#all.entries()) {
      for (const other of this.#all.slice(i + 1)) {
        const passes = other.access === 'lock' && one.access !== 'lock'
        if (!exclude(one, other) || passes) continue
        assert(this.#begun.get(one)! < this.#begun.get(other)!, `${other.number} overtook ${one.number}`)
      }
    }
  }

  #begin(request: Numbered): void {
    assert(
      !this.#running.some(running => exclude(running, request)),
      'two that exclude each other run together'
    )
    this.#running.push(request)
    this.#begun.set(request, this.#begun.size)
  }

  #check(): void {
    for (const request of this.#waiting) {
      const reasons = this.#waiting.filter(other =>
        request.access === 'lock'
          ? other.access === 'lock' && other.number < request.number
          : other.access === 'lock' || other.number < request.number
      )
      const hasReason = [...this.#running, ...reasons].some(
        other => other !== request && exclude(other, request)
      )
      assert(hasReason, `${request.number} waits for nothing`)
    }
    for (const byte of [0, 5, 11]) {
      const probe = { number: -1, offset: byte, length: 1, access: 'read' } as const
      const changing = [...this.#running, ...this.#waiting].some(
        other => other.access === 'change' && overlap(other, probe)
      )
      assert.equal(this.#order.changing(byte, 1), changing)
    }
  }
}

describe('the order of requests, by law', () => {
  it('runs no two together that exclude each other, keeps their order, delays none without need, and starves nobody', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), steps => {
        const trial = new Trial()
        for (const one of steps) {
          if ('finish' in one) trial.finish(one.finish)
          else trial.submit(one)
        }
        trial.end()
      }),
      { numRuns: 1500 }
    )
  })
})
