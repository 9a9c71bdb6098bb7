import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Journal, modelFromJournal, notePowerLoss } from '../../faults/load/journal.ts'

describe('what a client was told, after every replica has lost power', () => {
  let directory: string

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'xosan-journal-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  /**
   * Writes sector 0 again and again: `w` a write that is answered, `u` one that is not, `f` a flush that is answered,
   * `g` one that is not, `r` a new session, `p` the loss of power.
   *
   * @returns writes that the sector may hold then, 0 standing for none
   */
  const allowedAfter = async (steps: string): Promise<number[]> => {
    const path = join(directory, 'journal')
    let [journal, writes, flushes] = [new Journal(path), 0, 0]
    for (const step of steps) {
      if (step === 'w' || step === 'u') {
        journal.issue(++writes, 0, 1, false)
        if (step === 'w') journal.acknowledge(writes)
      } else if (step === 'f' || step === 'g') {
        journal.flush(++flushes)
        if (step === 'f') journal.flushed(flushes)
      } else if (step === 'r') journal.reopen()
      else {
        await journal.close()
        notePowerLoss(path)
        journal = new Journal(path)
      }
    }
    await journal.close()
    const allowed = Array.from({ length: writes + 1 }, (_, write) => write).filter(write => {
      const model = modelFromJournal(path, 1)
      return (
        model.endRead(
          model.startRead(0, 1),
          () => write,
          () => undefined
        ).length === 0
      )
    })
    rmSync(path)
    return allowed
  }

  it('may have lost what was acknowledged after the last flush, and nothing from before it', async () => {
    assert.deepEqual(await allowedAfter('wfwwr'), [3])
    assert.deepEqual(await allowedAfter('wfwwp'), [1, 2, 3])
    assert.deepEqual(await allowedAfter('wfwfp'), [2])
    assert.deepEqual(await allowedAfter('wfwgp'), [1, 2])
    assert.deepEqual(await allowedAfter('wfwup'), [1, 2, 3])
  })

  it('has lost nothing of a session that never flushed: each of its writes is durable', async () => {
    assert.deepEqual(await allowedAfter('wwp'), [2])
    assert.deepEqual(await allowedAfter('wfwrwp'), [3])
    assert.deepEqual(await allowedAfter('wfrwwp'), [3])
  })

  it('may have lost what the next session did not make durable either', async () => {
    assert.deepEqual(await allowedAfter('fwrfp'), [1])
    assert.deepEqual(await allowedAfter('wfwrgp'), [1, 2])
  })

  it('holds what came after the loss as usual', async () => {
    assert.deepEqual(await allowedAfter('wfwpww'), [4])
    assert.deepEqual(await allowedAfter('wfwpfwp'), [1, 2, 3])
  })
})
