import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { exportToolCertificates } from '../../../trust/tool-certificates.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { TrustRig } from '../../support/trust-rig.ts'

describe('certificates for NBD tools', () => {
  let parent: string
  let credentials: HostCredentials

  before(async () => {
    credentials = await (await TrustRig.create()).credentials()
  })
  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'xosan-tools-'))
  })
  afterEach(async () => rm(parent, { recursive: true }))

  const mode = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8)

  it('are for their owner alone, whatever the umask', async () => {
    const usual = process.umask(0)
    try {
      await exportToolCertificates(join(parent, 'tls'), credentials)
    } finally {
      process.umask(usual)
    }
    assert.equal(await mode(join(parent, 'tls')), '700')
    const names = ['ca-cert.pem', 'client-cert.pem', 'client-key.pem']
    assert.deepEqual((await readdir(join(parent, 'tls'))).sort(), names)
    const texts = [credentials.authoritiesPem, credentials.certificatePem, credentials.keyPem]
    for (const [i, name] of names.entries()) {
      assert.equal(await mode(join(parent, 'tls', name)), '600')
      assert.equal(await readFile(join(parent, 'tls', name), 'utf8'), texts[i])
    }
  })

  it('are not written where there is something already, or nothing to write into', async () => {
    await assert.rejects(exportToolCertificates(parent, credentials), { code: 'INVALID_ARGUMENT' })
    await assert.rejects(exportToolCertificates(join(parent, 'none', 'tls'), credentials), {
      code: 'INVALID_ARGUMENT',
    })
    assert.deepEqual(await readdir(parent), [])
  })
})
