import assert from 'node:assert/strict'
import fc from 'fast-check'
import { LineReader } from '../../../rpc/lines.ts'

describe('LineReader', () => {
  it('gives the same lines however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: 'grapheme' })),
        fc.array(fc.integer({ min: 1, max: 7 })),
        (texts, cuts) => {
          const lines = texts.map(text => text.replaceAll('\n', ' '))
          const bytes = Buffer.from(lines.map(line => `${line}\n`).join(''))
          const reader = new LineReader(1000)
          const read: string[] = []
          let position = 0
          for (const cut of [...cuts, bytes.length + 1]) {
            read.push(...reader.push(bytes.subarray(position, position + cut)))
            position += cut
          }
          assert.deepEqual(read, lines)
        }
      )
    )
  })

  it('refuses a line as soon as it is too long, finished or not', () => {
    const reader = new LineReader(10)
    assert.deepEqual(reader.push(Buffer.from('0123456789\n01234')), ['0123456789'])
    assert.throws(() => reader.push(Buffer.from('567890')), { code: 'PROTOCOL_VIOLATION' })
    assert.throws(() => new LineReader(3).push(Buffer.from('0123\n')), { code: 'PROTOCOL_VIOLATION' })
  })
})
