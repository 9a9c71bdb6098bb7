import assert from 'node:assert/strict'
import { parseConfig, readConfig } from '../../../daemon/config.ts'

const smallest = {
  host: { uuid: '6f1d5a0e-0000-4000-8000-00000000000a', name: 'h1', address: '127.0.0.1' },
  runDirectory: '/run/xosan',
  stateDirectory: '/var/lib/xosan',
  defaultPath: '/srv',
  coordinator: { kind: 'embedded', path: '/var/lib/coordinator.db' },
}

describe('the configuration', () => {
  it('fills in what is left out', () => {
    const { datapaths, ports, peers, pool, logLevel } = parseConfig(smallest)
    assert.deepEqual(ports, {
      peer: 7700,
      enrolment: 7701,
      datapath: 7710,
      nbd: 7730,
      etcdClient: 7750,
      etcdPeer: 7751,
    })
    assert.deepEqual({ datapaths, logLevel }, { datapaths: 2, logLevel: 'info' })
    // Whoever says nothing about it speaks to nobody in clear, and knows of no other host.
    assert.deepEqual({ peers, pool }, { peers: 'tls', pool: { kind: 'none' } })
  })

  it('lets hosts on the loopback share a file, and not etcd', () => {
    assert.equal(parseConfig({ ...smallest, peers: 'loopback' }).peers, 'loopback')
    const wrong = { ...smallest, peers: 'loopback', coordinator: { kind: 'etcd' } }
    assert.throws(() => parseConfig(wrong), /etcd needs tls/)
  })

  it('lets a host lose what is written to it in a lab only', () => {
    const lab = { unsyncedBytesMax: 1_000_000 }
    assert.throws(() => parseConfig({ ...smallest, lab }), /this is no host of a lab/)
    assert.deepEqual(parseConfig({ ...smallest, lab, peers: 'loopback' }).lab, lab)
    const pool = { kind: 'sockets', hosts: [] }
    assert.deepEqual(parseConfig({ ...smallest, lab, pool }).lab, lab)
    assert.equal(parseConfig(smallest).lab, undefined)
  })

  it('names a key that it does not know, and those that it does', () => {
    const wrong = { ...smallest, ports: { pear: 1 }, dataPaths: 3 }
    assert.throws(() => parseConfig(wrong), /unknown key pear; known are peer, datapath, nbd/)
    assert.throws(() => parseConfig(wrong), /unknown key dataPaths; known are host, .*datapaths/)
  })

  it('takes no relative path, no host name for an address and no port beyond the last', () => {
    assert.throws(
      () => parseConfig({ ...smallest, runDirectory: 'run' }),
      /runDirectory: must be an absolute path/
    )
    assert.throws(
      () => parseConfig({ ...smallest, host: { ...smallest.host, address: 'h1' } }),
      /host.address/
    )
    assert.throws(() => parseConfig({ ...smallest, ports: { peer: 70_000 } }), /ports.peer/)
  })

  it('says which file is missing', async () => {
    await assert.rejects(
      readConfig('/nonexistent.json'),
      /configuration file \/nonexistent.json is not valid: ENOENT/
    )
  })
})
