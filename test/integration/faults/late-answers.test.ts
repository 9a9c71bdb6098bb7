import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { contradictions } from '../../faults/cluster/late-answers.ts'
import { Journal } from '../../faults/load/journal.ts'
import { SECTOR_BYTES, fillSectors } from '../../faults/load/sector-content.ts'

const SECTORS = 64

describe('the answers of a primary that was replaced', () => {
  let directory: string
  let journal: Journal

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-late-'))
    journal = new Journal(join(directory, 'journal'))
  })
  afterEach(() => rm(directory, { recursive: true }))

  /** Judges a volume that holds these writes, each in a sector of its own, and zeros elsewhere. */
  const judge = async (found: Readonly<Record<number, number>>): Promise<number> => {
    await journal.close()
    const words = new Int32Array((SECTORS * SECTOR_BYTES) / 4)
    for (const [sector, write] of Object.entries(found)) {
      const at = (Number(sector) * SECTOR_BYTES) / 4
      fillSectors(words.subarray(at, at + SECTOR_BYTES / 4), write, Number(sector))
    }
    await writeFile(join(directory, 'kept'), words)
    return await contradictions(join(directory, 'journal'), join(directory, 'kept'))
  }

  it('are true when what was written is there, however late the answer came', async () => {
    journal.issue(1, 0, 1, false)
    journal.issue(2, 5, 1, false)
    journal.acknowledge(1)
    journal.acknowledge(2)
    assert.equal(await judge({ 0: 1, 5: 2 }), 0)
  })

  it('are not when it is not there, or something is that was written over', async () => {
    journal.issue(1, 0, 1, false)
    journal.acknowledge(1)
    journal.issue(2, 0, 1, false)
    journal.acknowledge(2)
    journal.issue(3, 7, 1, false)
    journal.acknowledge(3)
    assert.equal(await judge({ 0: 1 }), 2)
  })

  it('leave open what became of a write that was not answered', async () => {
    journal.issue(1, 0, 1, false)
    journal.issue(2, 5, 1, false)
    assert.equal(await judge({ 0: 1 }), 0)
  })
})
