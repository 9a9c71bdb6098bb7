import assert from 'node:assert/strict'
import { stretchesNotReached } from './reached-code.ts'

const stretch = (startOffset: number, endOffset: number, count: number) => ({ startOffset, endOffset, count })

describe('reached code', () => {
  it('counts by the innermost stretch', () => {
    const counted = [stretch(0, 100, 1), stretch(10, 50, 0), stretch(20, 30, 4), stretch(80, 100, 0)]
    assert.deepEqual(stretchesNotReached(counted), [
      [10, 20],
      [30, 50],
      [80, 100],
    ])
  })

  it('does not mind the order of functions', () => {
    const counted = [stretch(20, 30, 0), stretch(0, 40, 3)]
    assert.deepEqual(stretchesNotReached(counted), [[20, 30]])
  })

  it('says nothing of a script in which everything ran', () => {
    assert.deepEqual(stretchesNotReached([stretch(0, 40, 1), stretch(5, 9, 2)]), [])
  })
})
