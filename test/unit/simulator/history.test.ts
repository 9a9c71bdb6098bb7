import assert from 'node:assert/strict'
import { History, type Tenant, type WriteEntry } from '../../simulator/history.ts'

const SECTOR = 7
const guest: Tenant = { tenure: 1, process: {}, host: 'h1', startedAt: 0 }

/** A history in which writes of one sector follow each other. */
class Writer {
  readonly history = new History()
  now = 0

  constructor() {
    this.history.begins(guest)
  }

  write(value: number): WriteEntry {
    const entry: WriteEntry = {
      kind: 'write',
      value,
      firstSector: SECTOR,
      endSector: SECTOR + 1,
      invokedAt: ++this.now,
      tenant: guest,
      durable: false,
      acknowledgedAt: Infinity,
      durableAt: Infinity,
      holders: [],
      mayBeLost: false,
    }
    this.history.write(entry)
    assert.equal(this.history.acknowledged(entry, ++this.now), null)
    return entry
  }

  lose(...lost: WriteEntry[]): void {
    assert.deepEqual(this.history.split(lost, [SECTOR], ++this.now), [])
  }

  read(value: number): readonly string[] {
    const [invokedAt, returnedAt] = [++this.now, ++this.now]
    this.history.read({ kind: 'read', sector: SECTOR, value, invokedAt, returnedAt, tenant: guest })
    return this.history.check()
  }
}

describe('what a guest may read after a loss of power', () => {
  it('is what a lost write had replaced', () => {
    const writer = new Writer()
    const first = writer.write(1)
    first.durableAt = ++writer.now
    writer.lose(writer.write(2))
    assert.deepEqual(writer.read(1), [])
  })

  it('is not what was replaced by something that is not lost', () => {
    const writer = new Writer()
    const first = writer.write(1)
    writer.write(2)
    writer.lose(first)
    assert.match(writer.read(1)[0] ?? '', /cannot have survived/)
  })

  it('is what was replaced by something that is lost later', () => {
    const writer = new Writer()
    const first = writer.write(1)
    const second = writer.write(2)
    writer.lose(first)
    writer.lose(second)
    assert.deepEqual(writer.read(1), [])
  })

  it('is not what was replaced by something that became durable before the next loss', () => {
    const writer = new Writer()
    const first = writer.write(1)
    const second = writer.write(2)
    writer.lose(first)
    second.durableAt = ++writer.now
    writer.lose()
    assert.match(writer.read(1)[0] ?? '', /cannot have survived/)
  })
})
