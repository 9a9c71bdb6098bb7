import assert from 'node:assert/strict'
import { CERTIFICATES_MAX, type Member, MemberList } from '../../../trust/members.ts'
import { newHostId } from '../../support/trust-rig.ts'

describe('a list of members', () => {
  const [h1, h2, h3] = [newHostId(), newHostId(), newHostId()]
  const member = (host: Member['host'], ...certificates: string[]): Member => ({
    host,
    admission: 'first',
    certificates,
  })

  it('learns certificates of its members, and forgets none by that', () => {
    const list = new MemberList([member(h1, 'old'), member(h2, 'old', 'new')])
    list.learn([member(h1, 'old', 'new'), member(h2, 'old')])
    assert.deepEqual(list.all, [member(h1, 'old', 'new'), member(h2, 'new', 'old')])
  })

  it('learns of no other members, and nothing of an earlier admission of one', () => {
    const before = [member(h1, 'a'), member(h2, 'b')]
    const list = new MemberList(before)
    list.learn([{ ...member(h1, 'x'), admission: 'second' }, member(h3, 'c')])
    assert.deepEqual(list.all, before)
  })

  it('keeps no more certificates than a record holds, those that were told among them', () => {
    const many = Array.from({ length: CERTIFICATES_MAX }, (_, i) => `c${i}`)
    const list = new MemberList([member(h1, ...many)])
    list.learn([member(h1, 'new')])
    assert.deepEqual(list.get(h1)!.certificates, [...many.slice(1), 'new'])
  })
})
