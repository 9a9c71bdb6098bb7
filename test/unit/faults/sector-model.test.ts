import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { Journal, modelFromJournal } from '../../faults/load/journal.ts'
import {
  SECTOR_BYTES,
  UNKNOWN,
  ZEROS,
  fillSectors,
  identifySector,
} from '../../faults/load/sector-content.ts'
import { type Observation, SectorModel } from '../../faults/load/sector-model.ts'

/** Reads one sector at once and reports whether the model accepts what was found there. */
function accepts(model: SectorModel, sector: number, found: number): boolean {
  return (
    model.endRead(
      model.startRead(sector, 1),
      () => found,
      () => undefined
    ).length === 0
  )
}

describe('sector content', () => {
  it('names the write that a sector came from, and nothing else', () => {
    const words = new Int32Array((3 * SECTOR_BYTES) / 4)
    fillSectors(words, 77, 1000)
    assert.equal(identifySector(words, 128, 1001), 77)
    assert.equal(identifySector(words, 128, 1002), UNKNOWN, 'a sector in the wrong place')
    words[255]! ^= 1
    assert.equal(identifySector(words, 128, 1001), UNKNOWN, 'one bit turned in the last word')
    assert.equal(identifySector(new Int32Array(128), 0, 5), ZEROS)
  })
})

describe('the checker of the load', () => {
  it('accepts zeros in a new volume and only the acknowledged write afterwards', () => {
    const model = new SectorModel(8)
    assert.ok(accepts(model, 3, ZEROS))
    const id = model.issue(2, 3, false)
    model.acknowledge(id)
    assert.ok(accepts(model, 3, id))
    assert.ok(!accepts(model, 3, ZEROS), 'an acknowledged write was lost')
    assert.ok(!accepts(model, 5, id), 'a write spread beyond its end')
  })

  it('accepts the old or the new value while a write is in flight, and no way back once the new one was read', () => {
    const model = new SectorModel(1)
    const id = model.issue(0, 1, false)
    assert.ok(accepts(model, 0, ZEROS))
    assert.ok(accepts(model, 0, id))
    assert.ok(!accepts(model, 0, ZEROS), 'a read went back in time')
    model.acknowledge(id)
    assert.ok(accepts(model, 0, id))
  })

  it('accepts either of two writes that overlapped in time, and then only the one that was read', () => {
    const model = new SectorModel(1)
    const first = model.issue(0, 1, false)
    const second = model.issue(0, 1, false)
    model.acknowledge(second)
    model.acknowledge(first)
    assert.ok(accepts(model, 0, second))
    assert.ok(accepts(model, 0, second))
    assert.ok(!accepts(model, 0, first))
  })

  it('accepts a write whose answer never came, or not, and then the same on every later read', () => {
    for (const survived of [true, false]) {
      const model = new SectorModel(1)
      const acknowledged = model.issue(0, 1, false)
      model.acknowledge(acknowledged)
      const lost = model.issue(0, 1, false)
      model.reopen()
      assert.ok(!accepts(model, 0, ZEROS), 'rolled back beyond the acknowledged write')
      const found = survived ? lost : acknowledged
      const other = survived ? acknowledged : lost
      assert.ok(accepts(model, 0, found))
      assert.ok(!accepts(model, 0, other))
    }
  })

  it('accepts in a slow read what was there, came, and went meanwhile, but not what was gone before', () => {
    const judge = (
      pick: (writes: Readonly<Record<'before' | 'current' | 'during', number>>) => number
    ): boolean => {
      const model = new SectorModel(1)
      const write = (zeros: boolean): number => {
        const id = model.issue(0, 1, zeros)
        model.acknowledge(id)
        return id
      }
      const [before, current] = [write(false), write(false)]
      const read = model.startRead(0, 1)
      const during = write(false)
      write(true)
      const found = pick({ before, current, during })
      return (
        model.endRead(
          read,
          () => found,
          () => undefined
        ).length === 0
      )
    }
    assert.ok(judge(({ current }) => current))
    assert.ok(judge(({ during }) => during))
    assert.ok(judge(() => ZEROS))
    assert.ok(!judge(({ before }) => before))
  })

  it('knows from the journal alone what it knew, with what reads had decided', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'xosan-journal-'))
    try {
      const path = join(directory, 'journal')
      const model = new SectorModel(4)
      const journal = new Journal(path)
      const issue = (): number => {
        const id = model.issue(0, 2, false)
        journal.issue(id, 0, 2, false)
        return id
      }
      const [first, second] = [issue(), issue()]
      for (const id of [first, second]) {
        model.acknowledge(id)
        journal.acknowledge(id)
      }
      const decided = (observation: Observation): void =>
        journal.observe(observation.sector, observation.write)
      assert.deepEqual(
        model.endRead(model.startRead(0, 1), () => first, decided),
        []
      )
      await journal.close()
      assert.equal(journal.durableAcknowledgements, 2)
      const again = modelFromJournal(path, 4)
      assert.ok(!accepts(again, 0, second))
      assert.ok(accepts(again, 0, first))
      assert.ok(accepts(again, 1, second), 'the other sector is still undecided')
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })

  it('never accuses a register that applies overlapping writes in any order', () => {
    const step = fc.record({ kind: fc.integer({ min: 0, max: 5 }), pick: fc.nat(1000) })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), steps => {
        const model = new SectorModel(2)
        const values = [ZEROS, ZEROS]
        const inFlight: { id: number; sector: number; zeros: boolean; applied: boolean }[] = []
        const apply = (write: (typeof inFlight)[number]): void => {
          if (!write.applied) values[write.sector] = write.zeros ? ZEROS : write.id
          write.applied = true
        }
        for (const { kind, pick } of steps) {
          const write = inFlight[pick % Math.max(1, inFlight.length)]
          if (kind <= 1) {
            const [sector, zeros] = [pick % 2, pick % 7 === 0]
            inFlight.push({ id: model.issue(sector, 1, zeros), sector, zeros, applied: false })
          } else if (kind === 2 && write !== undefined) apply(write)
          else if (kind === 3 && write !== undefined) {
            apply(write)
            model.acknowledge(write.id)
            inFlight.splice(inFlight.indexOf(write), 1)
          } else if (kind === 4) assert.ok(accepts(model, pick % 2, values[pick % 2]!))
          else if (kind === 5 && pick % 10 === 0) {
            model.reopen()
            inFlight.length = 0
          }
        }
      }),
      { numRuns: 500 }
    )
  })
})
