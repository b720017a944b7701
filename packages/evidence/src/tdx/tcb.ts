/** Which TCB level a platform is at, and how far behind the newest. Intel PCS API v4, Get TDX TCB Info. */
import type { EnclaveLevel, PlatformLevel, TcbInfo, TcbLevel, TcbStatus, TdxModule } from './collateral.ts';
import type { Pck } from './pck.ts';

/**
 * The first level that the platform reaches in all parts, or null. From module version 1 on (TEE_TCB_SVN[1]) the first
 * two TDX components are the module's own and are compared with its identity instead.
 */
export function platformLevel(info: TcbInfo, pck: Pck, teeTcbSvn: Uint8Array): PlatformLevel | null {
  return info.levels.find((level) => shortOf(level, pck, teeTcbSvn).length === 0) ?? null;
}

/** What keeps a platform from a level, in words. */
export function shortOf(level: PlatformLevel, pck: Pck, teeTcbSvn: Uint8Array): string[] {
  const first = (teeTcbSvn[1] ?? 0) > 0 ? 2 : 0;
  const below = (name: string, have: number, want: number) => (have < want ? [`${name} ${have} < ${want}`] : []);
  return [
    ...level.sgx.flatMap((want, i) => below(`SGX[${i}]`, pck.components[i] ?? 0, want)),
    ...below('PCESVN', pck.pceSvn, level.pceSvn),
    ...level.tdx.flatMap((want, i) => (i < first ? [] : below(`TDX[${i}]`, teeTcbSvn[i] ?? 0, want))),
    ...(level.tdx.length === 16 ? [] : ['the level says nothing of TDX']),
  ];
}

/** Version 0 is described by `tdxModule`, later ones by the identity `TDX_NN`. */
export function moduleOf(info: TcbInfo, teeTcbSvn: Uint8Array): TdxModule | null {
  const version = teeTcbSvn[1] ?? 0;
  const id = version === 0 ? null : `TDX_${version.toString(16).toUpperCase().padStart(2, '0')}`;
  return info.modules.find((module) => module.id === id) ?? null;
}

export function enclaveLevel(levels: readonly EnclaveLevel[], isvSvn: number): EnclaveLevel | null {
  return levels.find((level) => isvSvn >= level.isvSvn) ?? null;
}

/** The newest level that is up to date, else the newest of all. */
export function newestLevel<T extends TcbLevel>(levels: readonly T[]): T | null {
  const best = (among: readonly T[]) =>
    among.reduce<T | null>((newest, one) => (newest === null || one.date > newest.date ? one : newest), null);
  return best(levels.filter(({ status }) => status === 'UpToDate')) ?? best(levels);
}

/** The platform's status with that of an enclave or module beside it: the worse decides. */
export function joinStatus(platform: TcbStatus, other: TcbStatus): TcbStatus {
  if (platform === 'Revoked' || other === 'Revoked') return 'Revoked';
  if (other === 'UpToDate') return platform;
  if (platform === 'ConfigurationNeeded' || platform === 'ConfigurationAndSWHardeningNeeded')
    return 'OutOfDateConfigurationNeeded';
  return platform === 'UpToDate' || platform === 'SWHardeningNeeded' ? 'OutOfDate' : platform;
}
