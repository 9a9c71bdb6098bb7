import assert from 'node:assert/strict'
import { REGION_BYTES, byteLength, byteOffset, firstRegion } from '../../../../core/units.ts'
import { Primary } from './primary.ts'
import { replicaOn } from './samples.ts'

const readable = (primary: Primary, offset = 0, length = 4096) =>
  primary.state.readableAtOnce(byteOffset(offset), byteLength(length))

describe('a read at once', () => {
  it('is of the local replica, and leaves nothing behind', () => {
    const primary = new Primary('AB')
    assert.equal(readable(primary), replicaOn('a'))
    assert.deepEqual(primary.effects(), [])
    assert.equal(primary.state.runningCount + primary.state.heldCount, 0)
  })

  it('is not while the volume does not serve', () => {
    assert.equal(readable(new Primary('AB', { serving: false })), null)
    const primary = new Primary('AB')
    primary.state.hold()
    assert.equal(readable(primary), null)
  })

  it('is not beside a change of the same bytes, until everybody has it', () => {
    const primary = new Primary('AB')
    const change = primary.write(8192)
    assert.equal(readable(primary, 8192 + 4095, 1), null)
    assert.equal(readable(primary, 0, 8193), null)
    assert.equal(readable(primary, 0, 8192), replicaOn('a'))
    assert.equal(readable(primary, 8192 + 4096), replicaOn('a'))
    primary.answer(change, 'a')
    assert.equal(readable(primary, 8192), null)
    primary.answer(change, 'b')
    assert.equal(readable(primary, 8192), replicaOn('a'))
  })

  it('is not beside a change that waits for another one', () => {
    const primary = new Primary('AB')
    primary.write(0)
    primary.submit('write', 0, 16_384)
    assert.equal(readable(primary, 12_288), null)
  })

  it('is beside a lock: a copy between replicas changes nothing that it could see', () => {
    const primary = new Primary('AB')
    primary.submit('lock')
    assert.equal(readable(primary), replicaOn('a'))
  })

  it('is not of a region that may differ between replicas', () => {
    const primary = new Primary('AB', { serving: false })
    const second = firstRegion(byteOffset(REGION_BYTES))
    primary.unreconciled.add(second)
    primary.state.serve(primary.unreconciled)
    assert.equal(readable(primary, REGION_BYTES - 4096), replicaOn('a'))
    assert.equal(readable(primary, REGION_BYTES - 4096, 4097), null)
    assert.deepEqual(primary.effects(), [], 'only a read that waits has it reconciled')
    primary.state.reconciled(second)
    assert.equal(readable(primary, REGION_BYTES), replicaOn('a'))
  })

  it('is not of another host, of a stale replica, or of one without a session', () => {
    const stale = new Primary('aB')
    assert.equal(readable(stale), null)
    assert.equal(readable(new Primary('+aB')), null)
    const away = new Primary('AB')
    away.disconnect('a')
    assert.equal(readable(away), null)
    away.connect('a')
    assert.equal(readable(away), replicaOn('a'))
  })
})
