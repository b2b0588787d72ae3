# bash completion of srt-mount
_srt_mount() {
    local cur prev words cword i=1 kinds
    _init_completion -n =: || return
    while ((i < cword)); do
        kinds=()
        case ${words[i]} in
        --)
            # Its place in COMP_WORDS, where bash has split the words at = and : too.
            local dashes=0 j
            for ((j = 1; j <= i; j++)); do [[ ${words[j]} == -- ]] && ((++dashes)); done
            for ((j = 1; j < ${#COMP_WORDS[@]}; j++)); do
                [[ ${COMP_WORDS[j]} == -- ]] && ((--dashes == 0)) && break
            done
            _command_offset $((j + 1))
            return
            ;;
        --bind) kinds=(file file) ;;
        --bind-try) kinds=(file file) ;;
        --ro-bind) kinds=(file file) ;;
        --ro-bind-try) kinds=(file file) ;;
        --dev-bind) kinds=(file file) ;;
        --dev-bind-try) kinds=(file file) ;;
        --bind-fd) kinds=(value file) ;;
        --ro-bind-fd) kinds=(value file) ;;
        --tmpfs) kinds=(file) ;;
        --proc) kinds=(file) ;;
        --dev) kinds=(file) ;;
        --mqueue) kinds=(file) ;;
        --proc-pids) kinds=(file) ;;
        --sys) kinds=(file) ;;
        --dir) kinds=(file) ;;
        --symlink) kinds=(value file) ;;
        --file) kinds=(value file) ;;
        --bind-data) kinds=(value file) ;;
        --ro-bind-data) kinds=(value file) ;;
        --overlay-src) kinds=(file) ;;
        --overlay) kinds=(file file file) ;;
        --tmp-overlay) kinds=(file) ;;
        --ro-overlay) kinds=(file) ;;
        --mask) kinds=(file) ;;
        --mask-try) kinds=(file) ;;
        --remount-ro) kinds=(file) ;;
        --chmod) kinds=(value file) ;;
        --perms) kinds=(value) ;;
        --size) kinds=(value) ;;
        --chdir) kinds=(file) ;;
        --args) kinds=(value) ;;
        --status-fd) kinds=(value) ;;
        --keep-fd) kinds=(value) ;;
        esac
        if ((i + ${#kinds[@]} >= cword)); then
            [[ ${kinds[cword - i - 1]} == file ]] && _filedir
            return
        fi
        ((i += 1 + ${#kinds[@]}))
    done
    mapfile -t COMPREPLY < <(compgen -W '--bind --bind-try --ro-bind --ro-bind-try --dev-bind --dev-bind-try --bind-fd --ro-bind-fd --tmpfs --proc --dev --mqueue --proc-pids --sys --dir --symlink --file --bind-data --ro-bind-data --overlay-src --overlay --tmp-overlay --ro-overlay --mask --mask-try --remount-ro --chmod --perms --size --placeholders --chdir --args --status-fd --keep-fd --help --version --' -- "$cur")
} && complete -F _srt_mount srt-mount
