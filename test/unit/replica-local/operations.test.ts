import assert from 'node:assert/strict'
import { Operations } from '../../../datapath/replica-local/operations.ts'

describe('operations under way', () => {
  it('are drained when all that had begun have ended, whatever begins later', async () => {
    const operations = new Operations()
    const early = [operations.begin(), operations.begin()]
    const ended: string[] = []
    const drained = operations.drained().then(() => ended.push('drained'))
    const late = operations.begin()
    operations.end(early[0]!)
    await new Promise(resolve => setImmediate(resolve))
    assert.equal(ended.length, 0)
    operations.end(early[1]!)
    await drained
    const again = operations.drained().then(() => ended.push('again'))
    await new Promise(resolve => setImmediate(resolve))
    assert.equal(ended.length, 1)
    operations.end(late)
    await again
    await operations.drained()
  })
})
