/** What an administrator does with the certificates that `trust.export` writes: asks replicas with NBD tools, and compares them. */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { PORTS } from '../../../cli/lab/host-files.ts'
import { type PoolHost, type PoolVolume } from '../../../cli/lab/pool.ts'
import { exportToolCertificates } from '../../../trust/tool-certificates.ts'
import { certificateFacts } from '../../../trust/certificate.ts'
import { DATAPATHS } from '../../support/test-lab.ts'
import { type AttackLab, askHost } from './attack-lab.ts'
import { type Credentials } from './attack-wire.ts'

export interface ToolsReport {
  readonly comparedBytes: number
  readonly faults: readonly string[]
}

/**
 * Asks for the replicas of a volume that is closed, compares them, and is refused without a member's certificate.
 *
 * @param stranger of another SR
 */
export async function checkWithTools(attacked: AttackLab, stranger: Credentials): Promise<ToolsReport> {
  const { lab, primary, removed, volume, holders } = attacked
  const faults: string[] = []
  const own = join(lab.directory, 'tool-certificates')
  await askHost(primary, 'trust.export', { directory: own })
  // It believes the hosts, so that they are who refuses.
  const foreign = join(lab.directory, 'foreign-certificates')
  const authoritiesPem = await attacked.trustFile(primary, 'authorities.pem')
  const { identity } = certificateFacts(stranger.certificatePem)!
  await exportToolCertificates(foreign, { ...stranger, identity: identity!, authoritiesPem })

  const images: string[] = []
  for (const host of holders) {
    const found = await portOf(attacked, host, own)
    if (typeof found === 'string') {
      faults.push(`nbdinfo with a member's certificate does not see the replica of ${host.name}: ${found}`)
      continue
    }
    const { address } = host
    images.push(`driver=nbd,host=${address},port=${found},export=${exportOf(volume)},tls-creds=tls`)
    const uris = [
      ['in clear', `nbd://${address}:${found}/${exportOf(volume)}`],
      [
        "with another SR's certificate",
        `nbds://${address}:${found}/${exportOf(volume)}?tls-certificates=${foreign}`,
      ],
    ]
    for (const [how, uri] of uris) {
      const { code } = await attacked.run(removed, ['nbdinfo', '--size', uri!])
      if (code === 0) faults.push(`nbdinfo ${how!} was answered by ${host.name}`)
    }
  }
  const [first, second] = images
  if (first === undefined || second === undefined) return { comparedBytes: 0, faults }
  const compare = async (certificates: string, other: string) => {
    const object = `tls-creds-x509,id=tls,dir=${certificates},endpoint=client`
    return attacked.run(primary, ['qemu-img', 'compare', '--object', object, '--image-opts', first, other])
  }
  const same = await compare(own, second)
  if (same.code !== COMPARED.identical) faults.push(`qemu-img compare of the replicas: ${same.output.trim()}`)
  const refused = await compare(foreign, second)
  if (refused.code === COMPARED.identical || refused.code === COMPARED.different) {
    faults.push("qemu-img compare with another SR's certificate could read the replicas")
  }
  const zeros = await zeroFile(join(lab.directory, 'zeros'), volume.size)
  const other = await compare(own, `driver=raw,file.driver=file,file.filename=${zeros}`)
  if (other.code !== COMPARED.different) faults.push('qemu-img compare does not see that a file is another')
  return { comparedBytes: volume.size, faults }
}

/** How `qemu-img compare` ends; anything else is that it could not read. */
const COMPARED = { identical: 0, different: 1 } as const

async function zeroFile(path: string, size: number): Promise<string> {
  const file = await open(path, 'wx', 0o600)
  await file.truncate(size)
  await file.close()
  return path
}

const exportOf = ({ sr, key }: PoolVolume): string => `check/${sr}/${key}`

/** Which of a host's datapath processes has a volume, or what the last one said. */
async function portOf(attacked: AttackLab, host: PoolHost, certificates: string): Promise<number | string> {
  const { primary, volume } = attacked
  let said = ''
  for (let index = 0; index < DATAPATHS; index++) {
    const port = PORTS.nbd + index
    const uri = `nbds://${host.address}:${port}/${exportOf(volume)}?tls-certificates=${certificates}`
    const { code, output } = await attacked.run(primary, ['nbdinfo', '--size', uri])
    if (code === 0 && Number(output.trim()) === volume.size) return port
    said = output.trim()
  }
  return said
}
