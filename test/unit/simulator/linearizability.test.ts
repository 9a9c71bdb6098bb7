import assert from 'node:assert/strict'
import { type Operation, registerConflict, ZEROS } from '../../simulator/linearizability.ts'

const operation = (value: number, invokedAt: number, endedAt: number): Operation => ({
  value,
  invokedAt,
  endedAt,
})

function conflict(writes: readonly Operation[], reads: readonly Operation[]): string | null {
  return registerConflict({ initial: operation(ZEROS, 0, 0), writes, reads })
}

describe('the law of one register', () => {
  it('allows either value while a write is under way', () => {
    const write = operation(1, 10, 20)
    assert.equal(conflict([write], [operation(ZEROS, 11, 12), operation(1, 13, 14)]), null)
  })

  it('does not allow the old value after the new one was read', () => {
    const found = conflict([operation(1, 10, 20)], [operation(1, 11, 12), operation(ZEROS, 13, 14)])
    assert.match(found ?? '', /zeros were overwritten before/)
  })

  it('does not allow a value that zeros had replaced', () => {
    const writes = [operation(1, 10, 20), operation(ZEROS, 30, 40)]
    assert.match(conflict(writes, [operation(1, 50, 60)]) ?? '', /although it was zeros/)
    assert.equal(conflict(writes, [operation(1, 35, 60)]), null)
  })

  it('does not allow a value that was there before and after another one', () => {
    const writes = [operation(1, 10, 20), operation(2, 30, 40)]
    assert.match(conflict(writes, [operation(2, 50, 60), operation(1, 70, 80)]) ?? '', /write [12]/)
  })

  it('lets zeros that nobody was told of explain a read only from when they can have been written', () => {
    const unanswered = { ...operation(ZEROS, 10, Infinity), latestAt: 30 }
    const writes = [operation(1, 1, 2), unanswered, operation(2, 40, 50)]
    assert.equal(conflict(writes, [operation(ZEROS, 20, 25)]), null)
    assert.match(conflict(writes, [operation(ZEROS, 60, 70)]) ?? '', /zeros were overwritten before/)
  })
})
